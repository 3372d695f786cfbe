/* Owns the encoder's parameters as the kernel reads them; computes nothing. */
#ifndef QA_MODEL_H
#define QA_MODEL_H

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

/* Columns of a weight panel, rows of a register tile, and the limits of the 32-bit sums of attention. */
enum { PANEL = 64, TILE = 6, MAX_TOKENS = 512, MAX_LAYERS = 63, MAX_HEAD_WIDTH = 64 };
enum { IDENTITY, GELU, RELU };

/* y = x W + b with int8 weights; `columns` is a multiple of PANEL. */
typedef struct {
    const int8_t *packed;     /* (columns / PANEL, inner / 4, PANEL, 4) */
    const float *scale;       /* (columns) of the weights */
    const float *column_sums; /* (columns) scale times the sum of the column's weights */
    const float *bias;        /* (columns) */
    const float *smooth;      /* (inner) factors of the input before it is quantized, or NULL */
    int32_t inner, columns;
} Linear;

typedef struct {
    const float *gamma, *beta; /* (hidden) */
} LayerNorm;

typedef struct {
    Linear qkv, out, up, down;
    LayerNorm after_attention, after_feed_forward;
} Layer;

/* An embedding table in unsigned bytes: value = scale * (byte - zero_point). */
typedef struct {
    const uint8_t *rows; /* (count, hidden), or NULL where the model has no such table */
    int64_t count;
    float scale, zero_point;
} Table;

typedef struct {
    Table words, positions, types;
} Tables;

typedef struct {
    LayerNorm after_embedding;
    Layer layers[MAX_LAYERS];
    const float *head; /* (2, hidden) */
    float head_bias[2];
    float epsilon;
    int32_t hidden, heads, inner, depth, activation;
} Model;

#endif
