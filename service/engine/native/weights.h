/* Owns the packed weights, one copy a process of each model; knows no ONNX Runtime.
 *
 * Sessions of different shapes, and a session that replaces another, load the same model: each packs the weights,
 * finds an equal copy by comparing bytes, and shares that.
 */
#ifndef QA_WEIGHTS_H
#define QA_WEIGHTS_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "encoder.h"

enum { QKV, OUT, UP, DOWN, LINEARS };

typedef struct {
    const int8_t *weights; /* (inner, columns) */
    const float *scale, *bias, *smooth;
} LinearSource;

/* The graph's initializers. */
typedef struct {
    const float *embedding_gamma, *embedding_beta;
    LinearSource linears[MAX_LAYERS][LINEARS];
    const float *norms[MAX_LAYERS][4]; /* gamma and beta after attention, then after the feed-forward part */
    const int8_t *head;                /* (hidden, 2) */
    const float *head_scale, *head_bias;
} Source;

typedef struct Weights {
    Model model; /* points into `buffer` */
    char *buffer;
    size_t bytes;
    int users;
    struct Weights *next;
} Weights;

static pthread_mutex_t weights_lock = PTHREAD_MUTEX_INITIALIZER;
static Weights *weights_list;

static Linear *layer_linear(Layer *layer, int number) {
    return (Linear *[]){&layer->qkv, &layer->out, &layer->up, &layer->down}[number];
}

/* Point a model's weights into a buffer from `at`; returns its end. `smooth` stays NULL where it is. */
static char *lay_out_weights(Model *m, char *at) {
    size_t norm = m->hidden * sizeof(float);
    m->after_embedding = (LayerNorm){take(&at, norm), take(&at, norm)};
    m->head = take(&at, 2 * norm);
    for (int i = 0; i < m->depth; i++) {
        Layer *layer = &m->layers[i];
        for (int j = 0; j < LINEARS; j++) {
            Linear *l = layer_linear(layer, j);
            l->packed = take(&at, (size_t)l->inner * l->columns);
            l->scale = take(&at, l->columns * sizeof(float));
            l->column_sums = take(&at, l->columns * sizeof(float));
            l->bias = take(&at, l->columns * sizeof(float));
            if (l->smooth) l->smooth = take(&at, l->inner * sizeof(float));
        }
        layer->after_attention = (LayerNorm){take(&at, norm), take(&at, norm)};
        layer->after_feed_forward = (LayerNorm){take(&at, norm), take(&at, norm)};
    }
    return at;
}

/* Interleave int8 weights (inner, columns) by groups of 4 rows and panels of 64 columns. */
static void pack_linear(const LinearSource *source, const Linear *l) {
    int8_t *packed = (int8_t *)l->packed;
    for (int panel = 0; panel < l->columns / PANEL; panel++)
        for (int k = 0; k < l->inner; k += 4)
            for (int c = 0; c < PANEL; c++)
                for (int i = 0; i < 4; i++)
                    *packed++ = source->weights[(size_t)(k + i) * l->columns + panel * PANEL + c];
    int32_t sums[PANEL];
    for (int panel = 0; panel < l->columns / PANEL; panel++) {
        memset(sums, 0, sizeof sums);
        for (int k = 0; k < l->inner; k++)
            for (int c = 0; c < PANEL; c++) sums[c] += source->weights[(size_t)k * l->columns + panel * PANEL + c];
        for (int c = 0; c < PANEL; c++)
            ((float *)l->column_sums)[panel * PANEL + c] = (float)sums[c] * source->scale[panel * PANEL + c];
    }
    memcpy((float *)l->scale, source->scale, l->columns * sizeof(float));
    memcpy((float *)l->bias, source->bias, l->columns * sizeof(float));
    if (l->smooth) memcpy((float *)l->smooth, source->smooth, l->inner * sizeof(float));
}

static void copy_norm(const LayerNorm *norm, const float *gamma, const float *beta, int hidden) {
    memcpy((float *)norm->gamma, gamma, hidden * sizeof(float));
    memcpy((float *)norm->beta, beta, hidden * sizeof(float));
}

static void fill_weights(Model *m, const Source *source) {
    copy_norm(&m->after_embedding, source->embedding_gamma, source->embedding_beta, m->hidden);
    for (int j = 0; j < 2; j++) {
        m->head_bias[j] = source->head_bias[j];
        for (int i = 0; i < m->hidden; i++)
            ((float *)m->head)[j * m->hidden + i] = (float)source->head[i * 2 + j] * source->head_scale[j];
    }
    for (int i = 0; i < m->depth; i++) {
        Layer *layer = &m->layers[i];
        for (int j = 0; j < LINEARS; j++) pack_linear(&source->linears[i][j], layer_linear(layer, j));
        copy_norm(&layer->after_attention, source->norms[i][0], source->norms[i][1], m->hidden);
        copy_norm(&layer->after_feed_forward, source->norms[i][2], source->norms[i][3], m->hidden);
    }
}

/* Whether both describe the same function: sizes here, parameters by their bytes. */
static int same_weights(const Weights *a, const Weights *b) {
    const Model *m = &a->model, *n = &b->model;
    if (a->bytes != b->bytes || m->hidden != n->hidden || m->heads != n->heads || m->inner != n->inner ||
        m->depth != n->depth || m->activation != n->activation || m->epsilon != n->epsilon ||
        memcmp(m->head_bias, n->head_bias, sizeof m->head_bias) != 0)
        return 0;
    for (int i = 0; i < m->depth; i++)
        for (int j = 0; j < LINEARS; j++)
            if (!layer_linear((Layer *)&m->layers[i], j)->smooth != !layer_linear((Layer *)&n->layers[i], j)->smooth)
                return 0;
    return memcmp(a->buffer, b->buffer, a->bytes) == 0;
}

static void free_weights(Weights *weights) {
    if (weights) free(weights->buffer);
    free(weights);
}

/* Weights of a model whose sizes are set; NULL where memory is short. To be given back with `release_weights`. */
static Weights *acquire_weights(const Model *sizes, const Source *source) {
    Weights *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->model = *sizes;
    made->bytes = (size_t)(uintptr_t)lay_out_weights(&made->model, NULL);
    made->buffer = aligned_alloc(64, made->bytes);
    if (!made->buffer) {
        free(made);
        return NULL;
    }
    memset(made->buffer, 0, made->bytes); /* padding is compared, too */
    made->model = *sizes;
    lay_out_weights(&made->model, made->buffer);
    fill_weights(&made->model, source);
    pthread_mutex_lock(&weights_lock);
    Weights *found = weights_list;
    while (found && !same_weights(found, made)) found = found->next;
    if (!found) {
        made->next = weights_list;
        weights_list = found = made;
        made = NULL;
    }
    found->users++;
    pthread_mutex_unlock(&weights_lock);
    free_weights(made);
    return found;
}

/* How many models are packed in this process; for tests. */
int qa_packed_models(void) {
    int count = 0;
    pthread_mutex_lock(&weights_lock);
    for (Weights *w = weights_list; w; w = w->next) count++;
    pthread_mutex_unlock(&weights_lock);
    return count;
}

static void release_weights(Weights *weights) {
    pthread_mutex_lock(&weights_lock);
    if (--weights->users == 0) {
        Weights **link = &weights_list;
        while (*link != weights) link = &(*link)->next;
        *link = weights->next;
        free_weights(weights);
    }
    pthread_mutex_unlock(&weights_lock);
}

#endif
