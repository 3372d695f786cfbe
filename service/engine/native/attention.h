/* Owns self-attention in integers with 32-bit accumulators; knows no weights and no other part of a layer.
 *
 * Queries, keys and values are quantized symmetrically to 7 bits and a sign, with one scale for each token and
 * head; attention probabilities to 15 bits, so that a sum over 512 tokens fits in 32 bits (8 bits lost the
 * probability of many unlikely tokens together: 0.13 F1). A value's scale is folded into its probability.
 */
#ifndef QA_ATTENTION_H
#define QA_ATTENTION_H

#include "linear.h"

/* Keys and values of one layer, all tokens, padded to a multiple of PANEL. */
typedef struct {
    int8_t *keys;     /* (heads, tokens / PANEL, width / 4, PANEL, 4) */
    int32_t *key_offsets; /* (heads, tokens) initial sums: -128 times the key's sum, for the queries' offset */
    int16_t *values;  /* (heads, tokens / 2, width, 2) */
    float *key_scale, *value_scale; /* (heads, tokens) */
} KeyValueCache;

typedef struct {
    uint8_t *rows; /* (tokens, heads, width) plus 128, since dpbusd wants one side unsigned */
    float *scale;  /* (tokens, heads) */
} Queries;

typedef struct {
    int heads, width, tokens, padded; /* padded: tokens rounded up to a multiple of PANEL */
} Shape;

/* What one thread needs while it attends. */
typedef struct {
    float *relative_scale;  /* (padded) scales of the values, 32767 the largest */
    float *scores;          /* (TILE, padded) */
    int16_t *probabilities; /* (TILE, padded) */
} AttentionScratch;

/* Quantize `width` values of one token and head symmetrically to [-127, 127]; returns the scale. */
INLINE float quantize_head(const float *values, int width, __m512i out[4]) {
    __m512 most = _mm512_setzero_ps();
    for (int i = 0; i < width; i += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(values + i)));
    float largest = _mm512_reduce_max_ps(most), inverse = largest > 0 ? 127.0f / largest : 0.0f;
    for (int i = 0; i < width; i += 16)
        out[i / 16] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(values + i), _mm512_set1_ps(inverse)));
    return largest / 127.0f;
}

/* Quantize token `t`'s query, key and value, given as `qkv` (3, heads, width), into their places. */
static void store_qkv(const float *qkv, int t, const Shape *s, const Queries *queries, const KeyValueCache *cache) {
    int hidden = s->heads * s->width;
    float scale = 1.44269504f / sqrtf((float)s->width); /* log2(e): softmax uses exp2 */
    for (int h = 0; h < s->heads; h++) {
        __m512i quantized[4];
        uint8_t *query = queries->rows + (size_t)t * hidden + h * s->width;
        queries->scale[t * s->heads + h] = scale * quantize_head(qkv + h * s->width, s->width, quantized);
        for (int i = 0; i < s->width; i += 16)
            _mm_storeu_si128((__m128i *)(query + i),
                             _mm512_cvtepi32_epi8(_mm512_add_epi32(quantized[i / 16], _mm512_set1_epi32(128))));

        int32_t groups[16]; /* the key, four dimensions in each */
        __m512i sum = _mm512_setzero_si512();
        cache->key_scale[h * s->padded + t] = quantize_head(qkv + hidden + h * s->width, s->width, quantized);
        for (int i = 0; i < s->width; i += 16) {
            _mm_storeu_si128((__m128i *)(groups + i / 4), _mm512_cvtepi32_epi8(quantized[i / 16]));
            sum = _mm512_add_epi32(sum, quantized[i / 16]);
        }
        cache->key_offsets[h * s->padded + t] = -128 * _mm512_reduce_add_epi32(sum);
        int32_t *key = (int32_t *)cache->keys +
                       ((size_t)h * s->padded + t / PANEL * PANEL) * (s->width / 4) + t % PANEL;
        for (int i = 0; i < s->width / 4; i++) key[i * PANEL] = groups[i];

        cache->value_scale[h * s->padded + t] = quantize_head(qkv + 2 * hidden + h * s->width, s->width, quantized);
        int32_t *value = (int32_t *)cache->values + ((size_t)h * s->padded / 2 + t / 2) * s->width;
        for (int i = 0; i < s->width; i += 16) { /* pairs of tokens: the even one in the low half */
            __m512i pair = _mm512_and_si512(quantized[i / 16], _mm512_set1_epi32(0xffff));
            if (t % 2)
                pair = _mm512_or_si512(_mm512_slli_epi32(quantized[i / 16], 16), _mm512_loadu_si512(value + i));
            _mm512_storeu_si512(value + i, pair);
        }
    }
}

/* 2^x for x <= 0, relative error at most 4e-6; NaN stays NaN. */
INLINE __m512 exp2_ps(__m512 x) {
    __m512 integer = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, integer), sum = _mm512_set1_ps(9.57005471e-03f);
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(5.59177697e-02f));
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(2.40247443e-01f));
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(6.93121850e-01f));
    sum = _mm512_fmadd_ps(sum, f, _mm512_set1_ps(9.99999285e-01f));
    return _mm512_scalef_ps(sum, integer);
}

/* Mask of the first `count` lanes, clamped to 0..16. */
INLINE __mmask16 lane_mask(int count) {
    return count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1 << count) - 1);
}

/* Scores of one tile of queries and `vectors` times 16 keys of head `h`, from token `panel` (a multiple of PANEL). */
INLINE void score_panel(const Shape *s, const Queries *queries, const KeyValueCache *cache, int h, int row, int rows,
                        int panel, int vectors, float *scores, __m512 *most) {
    const int32_t *query = (const int32_t *)(queries->rows + ((size_t)row * s->heads + h) * s->width);
    const int32_t *key = (const int32_t *)cache->keys + ((size_t)h * s->padded + panel) * (s->width / 4);
    size_t next = (size_t)s->heads * s->width / 4;
    const int32_t *offset = cache->key_offsets + h * s->padded + panel;
    __m512i sums[TILE][4], totals[TILE][4];
    FOR_ROWS FOR_VECTORS(vectors) sums[r][v] = _mm512_loadu_si512(offset + 16 * v);
    for (int k = 0; k < s->width / 4; k++, key += PANEL) {
        __m512i w[4];
        FOR_VECTORS(vectors) w[v] = _mm512_loadu_si512(key + 16 * v);
        FOR_ROWS {
            __m512i a = _mm512_set1_epi32(query[r * next + k]);
            FOR_VECTORS(vectors) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], a, w[v]);
        }
    }
    FOR_ROWS FOR_VECTORS(vectors) totals[r][v] = sums[r][v];
    for (int v = 0; v < vectors; v++) {
        int t = panel + 16 * v;
        __m512 key_scale = _mm512_loadu_ps(cache->key_scale + h * s->padded + t);
        __mmask16 valid = lane_mask(s->tokens - t);
        for (int r = 0; r < rows; r++) {
            __m512 query_scale = _mm512_set1_ps(queries->scale[(row + r) * s->heads + h]);
            __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(totals[r][v]), _mm512_mul_ps(query_scale, key_scale));
            x = _mm512_mask_blend_ps(valid, _mm512_set1_ps(-INFINITY), x);
            _mm512_storeu_ps(scores + r * s->padded + t, x);
            most[r] = _mm512_max_ps(most[r], x);
        }
    }
}

/* Scores (rows, padded) of one tile of queries and all keys of head `h`, and each row's maximum by lane. */
INLINE void tile_scores(const Shape *s, const Queries *queries, const KeyValueCache *cache, int h, int row, int rows,
                      float *scores, __m512 *most) {
    for (int r = 0; r < rows; r++) most[r] = _mm512_set1_ps(-INFINITY);
    int panel = 0;
    for (; panel + PANEL <= s->tokens; panel += PANEL)
        score_panel(s, queries, cache, h, row, rows, panel, 4, scores, most);
    switch ((s->tokens - panel + 15) / 16) {
    case 4: score_panel(s, queries, cache, h, row, rows, panel, 4, scores, most); break;
    case 3: score_panel(s, queries, cache, h, row, rows, panel, 3, scores, most); break;
    case 2: score_panel(s, queries, cache, h, row, rows, panel, 2, scores, most); break;
    case 1: score_panel(s, queries, cache, h, row, rows, panel, 1, scores, most); break;
    }
}

/* Softmax numerators of one row, each times its value's relative scale, in 15 bits; returns the denominator. */
INLINE float softmax_row(const Shape *s, const float *scores, float maximum, const float *relative_scale,
                         int16_t *out) {
    __m512 sum = _mm512_setzero_ps(), top = _mm512_set1_ps(maximum);
    for (int t = 0; t < s->tokens; t += 16) {
        __mmask16 valid = lane_mask(s->tokens - t);
        __m512 e = _mm512_maskz_mov_ps(valid, exp2_ps(_mm512_sub_ps(_mm512_loadu_ps(scores + t), top)));
        sum = _mm512_add_ps(sum, e);
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(e, _mm512_maskz_loadu_ps(valid, relative_scale + t)));
        _mm256_storeu_si256((__m256i *)(out + t), _mm512_cvtsepi32_epi16(q));
    }
    return _mm512_reduce_add_ps(sum);
}

/* Probabilities (rows, padded) times the values of head `h`; scaled by `scale` (rows) into out (rows, hidden). */
INLINE void weighted_values(const Shape *s, const KeyValueCache *cache, int h, const int16_t *probabilities, int rows,
                          int vectors, const float *scale, float *out) {
    __m512i sums[TILE][4], totals[TILE][4];
    const int32_t *value = (const int32_t *)cache->values + (size_t)h * s->padded / 2 * s->width;
    const int32_t *pairs = (const int32_t *)probabilities;
    FOR_ROWS FOR_VECTORS(vectors) sums[r][v] = _mm512_setzero_si512();
    for (int t = 0; t < (s->tokens + 1) / 2; t++, value += 16 * vectors) {
        __m512i w[4];
        FOR_VECTORS(vectors) w[v] = _mm512_loadu_si512(value + 16 * v);
        FOR_ROWS {
            __m512i a = _mm512_set1_epi32(pairs[r * s->padded / 2 + t]);
            FOR_VECTORS(vectors) sums[r][v] = _mm512_dpwssd_epi32(sums[r][v], a, w[v]);
        }
    }
    FOR_ROWS FOR_VECTORS(vectors) totals[r][v] = sums[r][v];
    for (int r = 0; r < rows; r++) {
        float *context = out + (size_t)r * s->heads * s->width + h * s->width;
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_ps(context + 16 * v,
                             _mm512_mul_ps(_mm512_cvtepi32_ps(totals[r][v]), _mm512_set1_ps(scale[r])));
    }
}

INLINE void attend_tile(const Shape *s, const Queries *queries, const KeyValueCache *cache, int h, int row, int rows,
                        float value_unit, const AttentionScratch *scratch, float *out) {
    __m512 most[TILE];
    float scale[TILE];
    tile_scores(s, queries, cache, h, row, rows, scratch->scores, most);
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * s->padded;
        float sum = softmax_row(s, scratch->scores + at, _mm512_reduce_max_ps(most[r]), scratch->relative_scale,
                                scratch->probabilities + at);
        scale[r] = value_unit / sum;
    }
    switch (s->width / 16) {
    case 1: weighted_values(s, cache, h, scratch->probabilities, rows, 1, scale, out); break;
    case 2: weighted_values(s, cache, h, scratch->probabilities, rows, 2, scale, out); break;
    case 3: weighted_values(s, cache, h, scratch->probabilities, rows, 3, scale, out); break;
    case 4: weighted_values(s, cache, h, scratch->probabilities, rows, 4, scale, out); break;
    }
}

/* Attention output of `rows` tokens from `first` on, into out (rows, hidden). */
static void attend(const Shape *s, const Queries *queries, const KeyValueCache *cache, int first, int rows,
                   const AttentionScratch *scratch, float *out) {
    size_t hidden = (size_t)s->heads * s->width;
    for (int h = 0; h < s->heads; h++) {
        const float *scale = cache->value_scale + h * s->padded;
        float largest = 1e-30f;
        for (int t = 0; t < s->tokens; t++) largest = scale[t] > largest ? scale[t] : largest;
        for (int t = 0; t < s->tokens; t++) scratch->relative_scale[t] = scale[t] * (32767.0f / largest);
        float unit = largest / 32767.0f;
        int r = 0;
        for (; r + TILE <= rows; r += TILE)
            attend_tile(s, queries, cache, h, first + r, TILE, unit, scratch, out + r * hidden);
        switch (rows - r) {
        case 5: attend_tile(s, queries, cache, h, first + r, 5, unit, scratch, out + r * hidden); break;
        case 4: attend_tile(s, queries, cache, h, first + r, 4, unit, scratch, out + r * hidden); break;
        case 3: attend_tile(s, queries, cache, h, first + r, 3, unit, scratch, out + r * hidden); break;
        case 2: attend_tile(s, queries, cache, h, first + r, 2, unit, scratch, out + r * hidden); break;
        case 1: attend_tile(s, queries, cache, h, first + r, 1, unit, scratch, out + r * hidden); break;
        }
    }
}

#endif
