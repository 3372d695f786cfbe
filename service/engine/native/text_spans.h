/* Owns the likeliest spans of one window's logits; knows no text and no other window. */
#ifndef QA_TEXT_SPANS_H
#define QA_TEXT_SPANS_H

#include <math.h>
#include <stdint.h>

typedef struct {
    int32_t first, last; /* tokens, both within the span */
    float score;
} Span;

/* Chances of `tokens` logits beside a null's, which is returned; they and it have the sum 1. */
static double softmax(const float *logits, int tokens, float null, float *chances) {
    float peak = null;
    for (int t = 0; t < tokens; t++) peak = logits[t] > peak ? logits[t] : peak;
    if (peak == -INFINITY) peak = 0; /* nothing to share out: all are 0 */
    double null_chance = exp((double)null - peak), sum = null_chance;
    for (int t = 0; t < tokens; t++) sum += chances[t] = expf(logits[t] - peak);
    if (sum == 0) return 0;
    for (int t = 0; t < tokens; t++) chances[t] /= (float)sum;
    return null_chance / sum;
}

/* Less likely, or as likely and later. */
static int worse(const Span *a, const Span *b) {
    if (a->score != b->score) return a->score < b->score;
    return a->first != b->first ? a->first > b->first : a->last > b->last;
}

/* Let spans[at] sink in a heap that has the worst on top. */
static void sink(Span *spans, int count, int at) {
    Span sinking = spans[at];
    for (int below; (below = 2 * at + 1) < count; at = below) {
        if (below + 1 < count && worse(&spans[below + 1], &spans[below])) below++;
        if (!worse(&spans[below], &sinking)) break;
        spans[at] = spans[below];
    }
    spans[at] = sinking;
}

/* The `count` likeliest spans of at most `width` tokens, likeliest first; there must be as many. */
static void search(const float *start, const float *end, int tokens, int width, Span *spans, int count) {
    int found = 0;
    float most = 0; /* of the ends; starts that reach nothing with it are passed over */
    for (int t = 0; t < tokens; t++) most = end[t] > most ? end[t] : most;
    for (int first = 0; first < tokens; first++) {
        if (found == count && start[first] * most <= spans[0].score) continue;
        for (int last = first; last < tokens && last - first < width; last++) {
            Span span = {first, last, start[first] * end[last]};
            if (found < count) {
                spans[found++] = span;
                if (found == count)
                    for (int i = count / 2; i-- > 0;) sink(spans, count, i);
            } else if (worse(&spans[0], &span)) {
                spans[0] = span;
                sink(spans, count, 0);
            }
        }
    }
    for (int left = count; --left > 0;) { /* the worst to the end */
        Span worst = spans[0];
        spans[0] = spans[left];
        spans[left] = worst;
        sink(spans, left, 0);
    }
}

#endif
