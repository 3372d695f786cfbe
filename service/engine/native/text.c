/* Owns what Python calls of the work before and after a model: pieces and spans; knows no model.
 *
 * Nothing here waits: a page takes microseconds, a text of 2 MB a tenth of a second, and the caller may keep
 * Python's lock. All memory is the caller's but a vocabulary's.
 */
#include "text_pieces.h"
#include "text_spans.h"

/* Tables of pieces that follow one another in `pieces` without a gap, none of them empty or twice there:
 * first `fronts` that begin a word, then `rests` that go on with one. `lower`: words are looked up in lower
 * case. Returns NULL where memory is short, else what qa_forget frees. */
void *qa_vocabulary(const uint8_t *pieces, const int32_t *lengths, const int32_t *ids, int32_t fronts,
                    int32_t rests, int lower, int64_t longest, int32_t unknown) {
    uint32_t front_slots = slots_for(fronts), rest_slots = slots_for(rests);
    size_t slots = ((size_t)front_slots + rest_slots) * sizeof(Slot), bytes = 0;
    for (int32_t n = 0; n < fronts + rests; n++) bytes += lengths[n];
    Vocabulary *v = calloc(1, sizeof *v + slots + bytes); /* all in one block */
    if (!v) return NULL;
    v->fronts = (Table){(Slot *)(v + 1), front_slots - 1, 0};
    v->rests = (Table){v->fronts.slots + front_slots, rest_slots - 1, 0};
    v->pieces = memcpy(v->rests.slots + rest_slots, pieces, bytes);
    v->longest = longest;
    v->unknown = unknown;
    for (int byte = 0; byte < 256; byte++) {
        v->kinds[byte] = kind_of(byte);
        v->fold[byte] = lower && byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
    }
    int32_t at = fill(v, &v->fronts, 0, lengths, ids, fronts);
    fill(v, &v->rests, at, lengths + fronts, ids + fronts, rests);
    return v;
}

void qa_forget(void *vocabulary) { free(vocabulary); }

/* Tokens of a UTF-8 text into rows (4, bytes + 1): ids or FOREIGN, first and last code point, number of the
 * word. Returns how many, or -1 for a text that holds a control character. */
int64_t qa_pieces(const void *vocabulary, const uint8_t *text, int64_t bytes, int64_t *rows) {
    int64_t stride = bytes + 1;
    Tokens tokens = {rows, rows + stride, rows + 2 * stride, rows + 3 * stride, 0};
    return cut(vocabulary, text, bytes, &tokens) ? -1 : tokens.count;
}

/* The `count` likeliest spans of the `tokens` context tokens from `context` on in one window's logits, of at
 * most `width` tokens; there must be as many. `null` is the place of the null's logits, negative where there
 * is none. Returns the null's chance, or -1 where memory is short. */
double qa_spans(const float *start, const float *end, int context, int tokens, int null, int width, Span *spans,
                int count) {
    float *chances = malloc((2 * (size_t)tokens + 1) * sizeof(float));
    if (!chances) return -1;
    double none = softmax(start + context, tokens, null < 0 ? -INFINITY : start[null], chances);
    none *= softmax(end + context, tokens, null < 0 ? -INFINITY : end[null], chances + tokens);
    search(chances, chances + tokens, tokens, width, spans, count);
    free(chances);
    return none;
}
