/* Owns what an encoder is to the kernel: its shape, its weights, one run's memory; computes nothing. */
#ifndef QA_MODEL_H
#define QA_MODEL_H

#include <stdint.h>

enum { PANEL = 64, TILE = 6, MAX_TOKENS = 512 };
enum { GELU = 0, RELU = 1 };

/* y = x W + b with int8 weights; `columns` is a multiple of PANEL, the last ones may be zeros. */
typedef struct {
    const int8_t *packed; /* (columns / PANEL, inner / 4, PANEL, 4) */
    const float *scale;   /* (columns) of the weights */
    const float *sums;    /* (columns) scale times the sum of the column's weights */
    const float *bias;    /* (columns) */
    const float *smooth;  /* (inner) factors of the input before it is rounded, or NULL */
    int32_t inner, columns;
} Product;

typedef struct {
    const float *gain, *shift; /* (hidden) */
} Norm;

typedef struct {
    Product qkv, out, up, down;
    Norm after_attention, after_down;
} Layer;

/* One embedding table of unsigned bytes: value = scale * (byte - zero). */
typedef struct {
    const uint8_t *rows; /* (count, hidden), or NULL where the model has no such table */
    int32_t count;
    float scale, zero;
} Table;

typedef struct {
    Table words, positions, types;
    Norm after_embedding;
    const Layer *layers;
    const float *head; /* (2, hidden) */
    float head_bias[2];
    float epsilon;
    int32_t hidden, heads, inner, depth, activation;
} Model;

#endif
