/* Owns the reading of a node of the graph: its attributes and initializers, checked; packs and computes nothing. */
#ifndef QA_NODE_H
#define QA_NODE_H

#include <stdio.h>

#include "ort.h"
#include "weights.h"

/* Reads a node's inputs one after the other; from the first failure on, nothing more is read. */
typedef struct {
    const OrtApi *api;
    const OrtKernelInfo *info;
    size_t next;
    OrtStatus *failure;
} Reader;

static int failed(Reader *r, OrtStatus *status) {
    if (!r->failure)
        r->failure = status;
    else if (status)
        r->api->ReleaseStatus(status);
    return r->failure != NULL;
}

static void refuse(Reader *r, const char *message) {
    if (!r->failure) r->failure = r->api->CreateStatus(ORT_INVALID_ARGUMENT, message);
}

/* Type and dimensions of a tensor of rank 1 or 2; a vector is (count, 1). */
static OrtStatus *describe(const OrtApi *api, const OrtValue *value, int *type, size_t *rank, int64_t dims[2]) {
    OrtTensorTypeAndShapeInfo *info = NULL;
    OrtStatus *status = api->GetTensorTypeAndShape(value, &info);
    if (status) return status;
    dims[0] = dims[1] = 1;
    if (!(status = api->GetTensorElementType(info, type)) && !(status = api->GetDimensionsCount(info, rank)) &&
        *rank >= 1 && *rank <= 2)
        status = api->GetDimensions(info, dims, *rank);
    api->ReleaseTensorTypeAndShapeInfo(info);
    return status;
}

/* The next input, an initializer of this type and shape; a dimension below 0 is read into `count` instead. */
static const void *initializer(Reader *r, int type, size_t rank, int64_t first, int64_t second, int64_t *count) {
    const OrtValue *value = NULL;
    int constant = 0, found = 0;
    size_t found_rank = 0, index = r->next++;
    int64_t dims[2];
    void *data = NULL;
    if (r->failure ||
        failed(r, r->api->KernelInfoGetConstantInput_tensor(r->info, index, &constant, &value)))
        return NULL;
    if (constant && value && !failed(r, describe(r->api, value, &found, &found_rank, dims)) && found == type &&
        found_rank == rank && (first < 0 || dims[0] == first) && dims[1] == second) {
        if (count) *count = dims[0];
        failed(r, r->api->GetTensorMutableData(value, &data));
        return data;
    }
    char message[120];
    snprintf(message, sizeof message, "Int8Encoder: input %zu is not the initializer of type and shape it must be.",
             index);
    refuse(r, message);
    return NULL;
}

static const float *floats(Reader *r, int64_t count) { return initializer(r, TENSOR_FLOAT, 1, count, 1, NULL); }

static int64_t integer(Reader *r, const char *name, int64_t least, int64_t most) {
    int64_t value = 0;
    if (!r->failure && !failed(r, r->api->KernelInfoGetAttribute_int64(r->info, name, &value)) &&
        (value < least || value > most))
        refuse(r, "Int8Encoder: an attribute is outside its range.");
    return r->failure ? least : value;
}

static void read_tables(Reader *r, int types, int hidden, Tables *tables) {
    Table *all[] = {&tables->words, &tables->positions, &tables->types};
    float scale[3], zero_point[3];
    size_t expected = 2 + types, scales = expected, zero_points = expected;
    if (r->failure ||
        failed(r, r->api->KernelInfoGetAttributeArray_float(r->info, "table_scale", scale, &scales)) ||
        failed(r, r->api->KernelInfoGetAttributeArray_float(r->info, "table_zero_point", zero_point, &zero_points)))
        return;
    if (scales != expected || zero_points != expected) {
        refuse(r, "Int8Encoder: one table_scale and table_zero_point for each table.");
        return;
    }
    for (size_t i = 0; i < expected && !r->failure; i++) {
        all[i]->rows = initializer(r, TENSOR_UINT8, 2, -1, hidden, &all[i]->count);
        all[i]->scale = scale[i];
        all[i]->zero_point = zero_point[i];
    }
}

static void read_linear(Reader *r, Linear *l, int inner, int columns, int smoothed, LinearSource *source) {
    l->inner = inner;
    l->columns = columns;
    source->weights = initializer(r, TENSOR_INT8, 2, inner, columns, NULL);
    source->scale = floats(r, columns);
    source->bias = floats(r, columns);
    source->smooth = smoothed ? floats(r, inner) : NULL;
    l->smooth = source->smooth;
}

/* Columns of the tensor at input `index`, or 0: sizes are read off the weights, not repeated as attributes. */
static int64_t columns_of(Reader *r, size_t index) {
    const OrtValue *value = NULL;
    int constant = 0, type;
    size_t rank = 0;
    int64_t dims[2] = {0, 0};
    if (r->failure || failed(r, r->api->KernelInfoGetConstantInput_tensor(r->info, index, &constant, &value)))
        return 0;
    if (constant && value && failed(r, describe(r->api, value, &type, &rank, dims))) return 0;
    return rank == 2 && dims[1] <= INT32_MAX ? dims[1] : 0;
}

/* Read the whole node. `model` gets sizes, `source` the initializers. */
static void read_node(Reader *r, Model *model, Source *source, Tables *tables) {
    int64_t smoothed[MAX_LAYERS * LINEARS];
    size_t flags = MAX_LAYERS * LINEARS;
    int types = (int)integer(r, "types", 0, 1);
    model->heads = (int32_t)integer(r, "heads", 1, 1 << 10);
    model->depth = (int32_t)integer(r, "layers", 1, MAX_LAYERS);
    model->activation = integer(r, "relu", 0, 1) ? RELU : GELU;
    if (r->failure || failed(r, r->api->KernelInfoGetAttribute_float(r->info, "epsilon", &model->epsilon)) ||
        failed(r, r->api->KernelInfoGetAttributeArray_int64(r->info, "smoothed", smoothed, &flags)))
        return;
    if (flags != (size_t)model->depth * LINEARS) {
        refuse(r, "Int8Encoder: `smoothed` must have four entries for each layer.");
        return;
    }
    r->next = 1 + types;
    int hidden = model->hidden = (int32_t)columns_of(r, r->next);
    if (!r->failure && (hidden < 1 || hidden % PANEL || hidden % (16 * model->heads) ||
                        hidden > MAX_HEAD_WIDTH * model->heads || hidden > 1 << 14))
        refuse(r, "Int8Encoder: this hidden size and number of heads are not supported.");
    read_tables(r, types, hidden, tables);
    source->embedding_gamma = floats(r, hidden);
    source->embedding_beta = floats(r, hidden);
    source->head = initializer(r, TENSOR_INT8, 2, hidden, 2, NULL);
    source->head_scale = floats(r, 2);
    source->head_bias = floats(r, 2);
    for (int i = 0; i < model->depth && !r->failure; i++) {
        Layer *layer = &model->layers[i];
        LinearSource *linears = source->linears[i];
        const int64_t *smooth = smoothed + i * LINEARS;
        read_linear(r, &layer->qkv, hidden, 3 * hidden, smooth[QKV] != 0, &linears[QKV]);
        read_linear(r, &layer->out, hidden, hidden, smooth[OUT] != 0, &linears[OUT]);
        int64_t inner = i ? model->inner : columns_of(r, r->next);
        if (!r->failure && (inner < 1 || inner % PANEL || inner > 1 << 16))
            refuse(r, "Int8Encoder: this feed-forward size is not supported.");
        model->inner = (int32_t)inner;
        read_linear(r, &layer->up, hidden, model->inner, smooth[UP] != 0, &linears[UP]);
        read_linear(r, &layer->down, model->inner, hidden, smooth[DOWN] != 0, &linears[DOWN]);
        for (int j = 0; j < 4; j++) source->norms[i][j] = floats(r, hidden);
    }
    size_t count = 0;
    if (!r->failure && !failed(r, r->api->KernelInfo_GetInputCount(r->info, &count)) && count != r->next)
        refuse(r, "Int8Encoder: the node has inputs that belong nowhere.");
}

#endif
