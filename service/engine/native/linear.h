/* Owns linear layers over quantized rows, a tile of rows by a panel of columns; knows no encoder layer. */
#ifndef QA_LINEAR_H
#define QA_LINEAR_H

#include <immintrin.h>
#include <math.h>
#include <stddef.h>

#include "tiles.h"

/* Loops over constant counts, unrolled so that the arrays they index become registers. */
#define FOR_ROWS _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)
#define FOR_VECTORS(count) _Pragma("GCC unroll 4") for (int v = 0; v < (count); v++)

/* Rows in unsigned bytes, each with its own range: value = minimum + scale * byte. */
typedef struct {
    uint8_t *bytes;         /* (rows, inner) */
    float *minimum, *scale; /* (rows) */
} QuantizedRows;

/* x Phi(x), error at most 4e-5: Phi - 1/2 is odd, x times a polynomial of x^2, constant from 4.3 on. */
INLINE __m512 gelu(__m512 x) {
    static const float C[] = {
        4.1975516812398084e-11f, -4.249075313822459e-09f, 1.90226302265728e-07f,
        -5.006204901292222e-06f, 8.711796544957906e-05f,  -1.0713876690715551e-03f,
        9.695150889456272e-03f,  -6.615559756755829e-02f, 3.988020718097687e-01f,
    };
    __m512 limit = _mm512_set1_ps(4.3f);
    __m512 c = _mm512_max_ps(_mm512_min_ps(x, limit), _mm512_sub_ps(_mm512_setzero_ps(), limit));
    __m512 square = _mm512_mul_ps(c, c);
    __m512 sum = _mm512_set1_ps(C[0]);
    _Pragma("GCC unroll 8") for (int i = 1; i < 9; i++) sum = _mm512_fmadd_ps(sum, square, _mm512_set1_ps(C[i]));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(c, sum, _mm512_set1_ps(0.5f)));
}

/* 16 columns of `rows` rows from their sums, the next row's `next` vectors on. */
INLINE void dequantize(const Linear *l, int column, const QuantizedRows *in, int row, int rows, const __m512i *sums,
                       int next, int activation, float *out, size_t stride) {
    __m512 scale = _mm512_loadu_ps(l->scale + column), column_sum = _mm512_loadu_ps(l->column_sums + column);
    __m512 bias = _mm512_loadu_ps(l->bias + column);
    for (int r = 0; r < rows; r++) {
        __m512 step = _mm512_mul_ps(scale, _mm512_set1_ps(in->scale[row + r]));
        __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(in->minimum[row + r]), column_sum, bias);
        y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r * next]), step, y);
        if (activation == GELU) y = gelu(y);
        if (activation == RELU) y = _mm512_max_ps(y, _mm512_setzero_ps());
        _mm512_storeu_ps(out + (size_t)(row + r) * stride + column, y);
    }
}

/* `rows` rows (a constant) of one panel: accumulated over all of `inner` in registers, then dequantized. */
INLINE void linear_tile(const Linear *l, int panel, const QuantizedRows *in, int row, int rows, int activation,
                        float *out, size_t stride) {
    __m512i sums[TILE][4], totals[4][TILE];
    const int8_t *weights = l->packed + (size_t)panel * PANEL * l->inner;
    const uint8_t *bytes = in->bytes + (size_t)row * l->inner;
    FOR_ROWS FOR_VECTORS(4) sums[r][v] = _mm512_setzero_si512();
    for (int k = 0; k < l->inner; k += 4, weights += 4 * PANEL) {
        __m512i w[4];
        FOR_VECTORS(4) w[v] = _mm512_loadu_si512(weights + 64 * v);
        FOR_ROWS {
            __m512i a = _mm512_set1_epi32(*(const int32_t *)(bytes + (size_t)r * l->inner + k));
            FOR_VECTORS(4) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], a, w[v]);
        }
    }
    FOR_ROWS FOR_VECTORS(4) totals[v][r] = sums[r][v]; /* without this copy gcc spills the sums in the loop */
    for (int v = 0; v < 4; v++)
        dequantize(l, panel * PANEL + 16 * v, in, row, rows, totals[v], 1, activation, out, stride);
}

/* `rows` rows, at most PAIR_ROWS, of one panel. Rows up to the next multiple of 16 are computed, and not stored. */
INLINE void linear_pair(const Linear *l, int panel, const QuantizedRows *in, int row, int rows, int activation,
                        float *out, size_t stride) {
    __m512i sums[PAIR_ROWS][PANEL / 16];
    const uint8_t *bytes = in->bytes + (size_t)row * l->inner;
    multiply_tiles(l, panel, bytes, rows > TILE_ROWS, (int32_t *)sums);
    for (int v = 0; v < PANEL / 16; v++)
        dequantize(l, panel * PANEL + 16 * v, in, row, rows, &sums[0][v], PANEL / 16, activation, out, stride);
}

/* out (rows, stride) = activation(in W + b). Compiled once for each activation. */
INLINE void linear_with(const Linear *l, const QuantizedRows *in, int rows, int activation, float *out,
                        size_t stride) {
    for (int panel = 0; panel < l->columns / PANEL; panel++) {
        int row = 0;
        if (tiles_enabled) {
            for (; row + PAIR_ROWS <= rows; row += PAIR_ROWS)
                linear_pair(l, panel, in, row, PAIR_ROWS, activation, out, stride);
            if (row < rows) linear_pair(l, panel, in, row, rows - row, activation, out, stride);
            continue;
        }
        for (; row + TILE <= rows; row += TILE) linear_tile(l, panel, in, row, TILE, activation, out, stride);
        switch (rows - row) {
        case 5: linear_tile(l, panel, in, row, 5, activation, out, stride); break;
        case 4: linear_tile(l, panel, in, row, 4, activation, out, stride); break;
        case 3: linear_tile(l, panel, in, row, 3, activation, out, stride); break;
        case 2: linear_tile(l, panel, in, row, 2, activation, out, stride); break;
        case 1: linear_tile(l, panel, in, row, 1, activation, out, stride); break;
        }
    }
}

static void linear(const Linear *l, const QuantizedRows *in, int rows, float *out, size_t stride) {
    linear_with(l, in, rows, IDENTITY, out, stride);
}

static void linear_gelu(const Linear *l, const QuantizedRows *in, int rows, float *out, size_t stride) {
    linear_with(l, in, rows, GELU, out, stride);
}

static void linear_relu(const Linear *l, const QuantizedRows *in, int rows, float *out, size_t stride) {
    linear_with(l, in, rows, RELU, out, stride);
}

/* Quantize one row of `values` (inner), times `smooth` (inner) unless NULL, to 256 steps of its own range. */
static void quantize_row(const float *values, const float *smooth, int inner, const QuantizedRows *out, int row) {
    __m512 least = _mm512_set1_ps(INFINITY), most = _mm512_set1_ps(-INFINITY);
    for (int i = 0; i < inner; i += 16) {
        __m512 x = _mm512_loadu_ps(values + i);
        if (smooth) x = _mm512_mul_ps(x, _mm512_loadu_ps(smooth + i));
        least = _mm512_min_ps(least, x);
        most = _mm512_max_ps(most, x);
    }
    float minimum = _mm512_reduce_min_ps(least), range = _mm512_reduce_max_ps(most) - minimum;
    float inverse = range > 0 ? 255.0f / range : 0.0f;
    out->minimum[row] = minimum;
    out->scale[row] = range / 255.0f;
    __m512 factor = _mm512_set1_ps(inverse), shift = _mm512_set1_ps(-minimum * inverse);
    uint8_t *bytes = out->bytes + (size_t)row * inner;
    for (int i = 0; i < inner; i += 16) {
        __m512 x = _mm512_loadu_ps(values + i);
        if (smooth) x = _mm512_mul_ps(x, _mm512_loadu_ps(smooth + i));
        __m512i q = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_fmadd_ps(x, factor, shift), _mm512_setzero_ps()));
        _mm_storeu_si128((__m128i *)(bytes + i), _mm512_cvtusepi32_epi8(q));
    }
}

static void quantize_rows(const float *values, const float *smooth, int rows, int inner,
                          const QuantizedRows *out) {
    for (int r = 0; r < rows; r++) quantize_row(values + (size_t)r * inner, smooth, inner, out, r);
}

#endif
