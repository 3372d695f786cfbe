/* Owns attention in small integers, summed in 32 bits; knows no weights and no other layer part.
 *
 * Queries, keys and values keep 7 bits and a sign, the chances 15, so that a sum over 512 tokens fits in 32;
 * in 8 the chances of many unlikely tokens were lost together. Every token has a range of its own in each
 * head; a value's is folded into its chance.
 */
#ifndef QA_ATTENTION_H
#define QA_ATTENTION_H

#include "product.h"

/* Keys and values of one layer, all tokens. Tokens are padded to a multiple of PANEL. */
typedef struct {
    int8_t *keys;     /* (heads, tokens / PANEL, width / 4, PANEL, 4) */
    int32_t *origins; /* (heads, tokens) what a product with a key begins at, since queries are not below 0 */
    int16_t *values;  /* (heads, tokens / 2, width, 2) */
    float *key_step, *value_step; /* (heads, tokens) */
} Memory;

typedef struct {
    uint8_t *rows; /* (tokens, heads, width) 128 more than they are */
    float *step;   /* (tokens, heads) */
} Queries;

typedef struct {
    int heads, width, tokens, padded; /* padded: the multiple of PANEL that holds all tokens */
} Shape;

/* Round `width` values of one token and head to at most 127; returns the step. */
INLINE float round_head(const float *values, int width, __m512i out[4]) {
    __m512 most = _mm512_setzero_ps();
    for (int i = 0; i < width; i += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(values + i)));
    float largest = _mm512_reduce_max_ps(most), inverse = largest > 0 ? 127.0f / largest : 0.0f;
    for (int i = 0; i < width; i += 16)
        out[i / 16] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(values + i), _mm512_set1_ps(inverse)));
    return largest / 127.0f;
}

/* Put token `t`'s query, key and value, one after the other in `qkv` (3, heads, width), where they belong. */
static void remember(const float *qkv, int t, const Shape *s, const Queries *queries, const Memory *memory) {
    int hidden = s->heads * s->width;
    float scale = 1.44269504f / sqrtf((float)s->width); /* scores in powers of two */
    for (int h = 0; h < s->heads; h++) {
        __m512i whole[4];
        uint8_t *query = queries->rows + (size_t)t * hidden + h * s->width;
        queries->step[t * s->heads + h] = scale * round_head(qkv + h * s->width, s->width, whole);
        for (int i = 0; i < s->width; i += 16)
            _mm_storeu_si128((__m128i *)(query + i),
                             _mm512_cvtepi32_epi8(_mm512_add_epi32(whole[i / 16], _mm512_set1_epi32(128))));

        int32_t fours[16]; /* dimensions, a key's product with 128 of each */
        __m512i sum = _mm512_setzero_si512();
        memory->key_step[h * s->padded + t] = round_head(qkv + hidden + h * s->width, s->width, whole);
        for (int i = 0; i < s->width; i += 16) {
            _mm_storeu_si128((__m128i *)(fours + i / 4), _mm512_cvtepi32_epi8(whole[i / 16]));
            sum = _mm512_add_epi32(sum, whole[i / 16]);
        }
        memory->origins[h * s->padded + t] = -128 * _mm512_reduce_add_epi32(sum);
        int32_t *key = (int32_t *)memory->keys +
                       ((size_t)h * s->padded + t / PANEL * PANEL) * (s->width / 4) + t % PANEL;
        for (int i = 0; i < s->width / 4; i++) key[i * PANEL] = fours[i];

        memory->value_step[h * s->padded + t] = round_head(qkv + 2 * hidden + h * s->width, s->width, whole);
        int32_t *value = (int32_t *)memory->values + ((size_t)h * s->padded / 2 + t / 2) * s->width;
        for (int i = 0; i < s->width; i += 16) { /* the even token of a pair comes first, in one block */
            __m512i pair = _mm512_and_si512(whole[i / 16], _mm512_set1_epi32(0xffff));
            if (t % 2)
                pair = _mm512_or_si512(_mm512_slli_epi32(whole[i / 16], 16), _mm512_loadu_si512(value + i));
            _mm512_storeu_si512(value + i, pair);
        }
    }
}

/* 2^x for x <= 0, within 4e-6 of itself; what is not a number stays none. */
INLINE __m512 power(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole), sum = _mm512_set1_ps(9.57005471e-03f);
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(5.59177697e-02f));
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(2.40247443e-01f));
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(6.93121850e-01f));
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(9.99999285e-01f));
    return _mm512_scalef_ps(sum, whole);
}

/* The first `count` lanes, at most all and at least none. */
INLINE __mmask16 these(int count) {
    return count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1 << count) - 1);
}

/* One tile of queries against `vectors` times 16 keys of head `h` from `panel` on, a multiple of PANEL. */
INLINE void score_panel(const Shape *s, const Queries *queries, const Memory *memory, int h, int row, int rows,
                        int panel, int vectors, float *scores, __m512 *most) {
    const int32_t *query = (const int32_t *)(queries->rows + ((size_t)row * s->heads + h) * s->width);
    const int32_t *key = (const int32_t *)memory->keys + ((size_t)h * s->padded + panel) * (s->width / 4);
    size_t next = (size_t)s->heads * s->width / 4;
    const int32_t *origin = memory->origins + h * s->padded + panel;
    __m512i sums[TILE][4], totals[TILE][4];
    EACH_ROW EACH_VECTOR(vectors) sums[r][v] = _mm512_loadu_si512(origin + 16 * v);
    for (int k = 0; k < s->width / 4; k++, key += PANEL) {
        __m512i w[4];
        EACH_VECTOR(vectors) w[v] = _mm512_loadu_si512(key + 16 * v);
        EACH_ROW {
            __m512i a = _mm512_set1_epi32(query[r * next + k]);
            EACH_VECTOR(vectors) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], a, w[v]);
        }
    }
    EACH_ROW EACH_VECTOR(vectors) totals[r][v] = sums[r][v];
    for (int v = 0; v < vectors; v++) {
        int t = panel + 16 * v;
        __m512 step = _mm512_loadu_ps(memory->key_step + h * s->padded + t);
        __mmask16 there = these(s->tokens - t);
        for (int r = 0; r < rows; r++) {
            __m512 own = _mm512_set1_ps(queries->step[(row + r) * s->heads + h]);
            __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(totals[r][v]), _mm512_mul_ps(own, step));
            x = _mm512_mask_blend_ps(there, _mm512_set1_ps(-INFINITY), x);
            _mm512_storeu_ps(scores + r * s->padded + t, x);
            most[r] = _mm512_max_ps(most[r], x);
        }
    }
}

/* One tile of queries against all keys of head `h`: scores (rows, padded), and each row's largest. */
INLINE void scores_of(const Shape *s, const Queries *queries, const Memory *memory, int h, int row, int rows,
                      float *scores, __m512 *most) {
    for (int r = 0; r < rows; r++) most[r] = _mm512_set1_ps(-INFINITY);
    int panel = 0;
    for (; panel + PANEL <= s->tokens; panel += PANEL)
        score_panel(s, queries, memory, h, row, rows, panel, 4, scores, most);
    switch ((s->tokens - panel + 15) / 16) {
    case 4: score_panel(s, queries, memory, h, row, rows, panel, 4, scores, most); break;
    case 3: score_panel(s, queries, memory, h, row, rows, panel, 3, scores, most); break;
    case 2: score_panel(s, queries, memory, h, row, rows, panel, 2, scores, most); break;
    case 1: score_panel(s, queries, memory, h, row, rows, panel, 1, scores, most); break;
    }
}

/* Scores of one row to chances in 15 bits, each times its value's share of the largest; their true sum. */
INLINE float chances_of(const Shape *s, const float *scores, float most, const float *shares, int16_t *out) {
    __m512 sum = _mm512_setzero_ps(), top = _mm512_set1_ps(most);
    for (int t = 0; t < s->tokens; t += 16) {
        __mmask16 there = these(s->tokens - t);
        __m512 e = _mm512_maskz_mov_ps(there, power(_mm512_sub_ps(_mm512_loadu_ps(scores + t), top)));
        sum = _mm512_add_ps(sum, e);
        __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(e, _mm512_maskz_loadu_ps(there, shares + t)));
        _mm256_storeu_si256((__m256i *)(out + t), _mm512_cvtsepi32_epi16(whole));
    }
    return _mm512_reduce_add_ps(sum);
}

/* Chances (rows, padded) times the values of head `h`; scaled by `steps` into out (rows, hidden). */
INLINE void gather_values(const Shape *s, const Memory *memory, int h, const int16_t *chances, int rows,
                          int vectors, const float *steps, float *out) {
    __m512i sums[TILE][4], totals[TILE][4];
    const int32_t *value = (const int32_t *)memory->values + (size_t)h * s->padded / 2 * s->width;
    const int32_t *pairs = (const int32_t *)chances;
    EACH_ROW EACH_VECTOR(vectors) sums[r][v] = _mm512_setzero_si512();
    for (int t = 0; t < (s->tokens + 1) / 2; t++, value += 16 * vectors) {
        __m512i w[4];
        EACH_VECTOR(vectors) w[v] = _mm512_loadu_si512(value + 16 * v);
        EACH_ROW {
            __m512i a = _mm512_set1_epi32(pairs[r * s->padded / 2 + t]);
            EACH_VECTOR(vectors) sums[r][v] = _mm512_dpwssd_epi32(sums[r][v], a, w[v]);
        }
    }
    EACH_ROW EACH_VECTOR(vectors) totals[r][v] = sums[r][v];
    for (int r = 0; r < rows; r++) {
        float *context = out + (size_t)r * s->heads * s->width + h * s->width;
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_ps(context + 16 * v,
                             _mm512_mul_ps(_mm512_cvtepi32_ps(totals[r][v]), _mm512_set1_ps(steps[r])));
    }
}

INLINE void attend_tile(const Shape *s, const Queries *queries, const Memory *memory, int h, int row, int rows,
                        const float *shares, float share_step, float *scores, int16_t *chances, float *out) {
    __m512 most[TILE];
    float steps[TILE];
    scores_of(s, queries, memory, h, row, rows, scores, most);
    for (int r = 0; r < rows; r++) {
        float sum = chances_of(s, scores + r * s->padded, _mm512_reduce_max_ps(most[r]), shares,
                               chances + r * s->padded);
        steps[r] = share_step / sum;
    }
    switch (s->width / 16) {
    case 1: gather_values(s, memory, h, chances, rows, 1, steps, out); break;
    case 2: gather_values(s, memory, h, chances, rows, 2, steps, out); break;
    case 3: gather_values(s, memory, h, chances, rows, 3, steps, out); break;
    case 4: gather_values(s, memory, h, chances, rows, 4, steps, out); break;
    }
}

/* Context of `rows` tokens from `first` on into out (rows, hidden). Scratch: shares (padded),
 * scores (TILE, padded), chances (TILE, padded). */
static void attend(const Shape *s, const Queries *queries, const Memory *memory, int first, int rows,
                   float *shares, float *scores, int16_t *chances, float *out) {
    size_t hidden = (size_t)s->heads * s->width;
    for (int h = 0; h < s->heads; h++) {
        const float *steps = memory->value_step + h * s->padded;
        float largest = 1e-30f;
        for (int t = 0; t < s->tokens; t++) largest = steps[t] > largest ? steps[t] : largest;
        for (int t = 0; t < s->tokens; t++) shares[t] = steps[t] * (32767.0f / largest);
        float step = largest / 32767.0f;
        int r = 0;
        for (; r + TILE <= rows; r += TILE)
            attend_tile(s, queries, memory, h, first + r, TILE, shares, step, scores, chances, out + r * hidden);
        switch (rows - r) {
        case 5: attend_tile(s, queries, memory, h, first + r, 5, shares, step, scores, chances, out + r * hidden); break;
        case 4: attend_tile(s, queries, memory, h, first + r, 4, shares, step, scores, chances, out + r * hidden); break;
        case 3: attend_tile(s, queries, memory, h, first + r, 3, shares, step, scores, chances, out + r * hidden); break;
        case 2: attend_tile(s, queries, memory, h, first + r, 2, shares, step, scores, chances, out + r * hidden); break;
        case 1: attend_tile(s, queries, memory, h, first + r, 1, shares, step, scores, chances, out + r * hidden); break;
        }
    }
}

#endif
