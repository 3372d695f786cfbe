/* Owns ONNX Runtime's view of the encoder: one custom operator, from a graph's initializers to logits.
 *
 * Domain qa_onnx, operator Int8Encoder, version 1. Inputs, all but the first two initializers:
 *   input_ids (windows, tokens) int64; token_type_ids likewise where `types` is 1;
 *   embedding tables (count, hidden) uint8: words, positions, and types where `types` is 1;
 *   gamma, beta (hidden) of the embeddings; head weights (hidden, 2) int8, head scale (2), head bias (2);
 *   for each layer: qkv, attention output, feed-forward up and down, each as weights (inner, columns) int8,
 *   scale (columns), bias (columns), and smooth (inner) where `smoothed` says so; then gamma, beta after the
 *   attention, gamma, beta after the feed-forward part (hidden). Floats unless said otherwise.
 * Attributes: heads, layers, types (0, 1), relu (0: GELU, 1: ReLU), epsilon, table_scale and table_zero_point
 * (one of each table), smoothed (layers x 4, 0 or 1).
 * Outputs: start_logits, end_logits (windows, tokens).
 */
#include "node.h"

enum { MAX_THREADS = 256 };

typedef struct {
    OrtCustomOp op; /* first: ONNX Runtime hands a pointer to it back */
    int threads;    /* of the session */
} EncoderOp;

typedef struct {
    const OrtApi *api;
    Weights *weights;
    Tables tables; /* their rows are looked up at each run */
    int threads;
} Kernel;

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **made) {
    OrtStatus *short_of_memory = NULL;
    Reader reader = {.api = api, .info = info};
    Kernel *kernel = calloc(1, sizeof *kernel);
    Model *model = calloc(1, sizeof *model);
    Source *source = calloc(1, sizeof *source);
    if (kernel && model && source) {
        read_node(&reader, model, source, &kernel->tables);
        if (!reader.failure) kernel->weights = acquire_weights(model, source);
    }
    if (!reader.failure && !(kernel && kernel->weights))
        short_of_memory = api->CreateStatus(ORT_FAIL, "Int8Encoder: not enough memory for the weights.");
    free(model);
    free(source);
    if (reader.failure || short_of_memory) {
        free(kernel);
        return reader.failure ? reader.failure : short_of_memory;
    }
    kernel->api = api;
    kernel->threads = ((const EncoderOp *)op)->threads;
    *made = kernel;
    return NULL;
}

static void destroy(void *given) {
    Kernel *kernel = given;
    release_weights(kernel->weights);
    free(kernel);
}

/* Data of input `index`; `dims` may be NULL. */
static OrtStatus *input(const OrtApi *api, const OrtKernelContext *context, size_t index, int64_t dims[2],
                        const void **data) {
    const OrtValue *value = NULL;
    int type;
    size_t rank;
    OrtStatus *status = api->KernelContext_GetInput(context, index, &value);
    if (status) return status;
    if (dims) {
        if ((status = describe(api, value, &type, &rank, dims))) return status;
        if (type != TENSOR_INT64 || rank != 2)
            return api->CreateStatus(ORT_INVALID_ARGUMENT, "Int8Encoder: ids must be int64 (windows, tokens).");
    }
    return api->GetTensorMutableData(value, (void **)data);
}

static OrtStatus *output(const OrtApi *api, OrtKernelContext *context, size_t index, const int64_t dims[2],
                         float **data) {
    OrtValue *value = NULL;
    OrtStatus *status = api->KernelContext_GetOutput(context, index, dims, 2, &value);
    return status ? status : api->GetTensorMutableData(value, (void **)data);
}

static int ids_in_tables(const Run *run) {
    for (int t = 0; t < run->shape.tokens; t++) {
        if (run->ids[t] < 0 || run->ids[t] >= run->tables.words.count) return 0;
        if (run->types && (run->types[t] < 0 || run->types[t] >= run->tables.types.count)) return 0;
    }
    return 1;
}

static void run_worker(void *run, size_t index) {
    (void)index; /* workers number themselves */
    run_phases(run);
}

static OrtStatus *run_window(const Kernel *kernel, const OrtKernelContext *context, Run *run) {
    const OrtApi *api = kernel->api;
    if (!ids_in_tables(run))
        return api->CreateStatus(ORT_INVALID_ARGUMENT, "Int8Encoder: an id is not in its table.");
    OrtStatus *status = NULL;
    char *memory = plan_run(run, kernel->threads);
    if (!memory) return api->CreateStatus(ORT_FAIL, "Int8Encoder: not enough memory for a run.");
    if (run->workers > 1)
        status = api->KernelContext_ParallelFor(context, run_worker, run->workers, 0, run);
    else
        run_phases(run);
    release_buffer(memory);
    return status;
}

static OrtStatus *compute(void *given, OrtKernelContext *context) {
    const Kernel *kernel = given;
    const OrtApi *api = kernel->api;
    Tables tables = kernel->tables;
    Table *rows[] = {&tables.words, &tables.positions, &tables.types};
    int types = tables.types.rows != NULL;
    int64_t dims[2], type_dims[2];
    const int64_t *ids = NULL, *type_ids = NULL;
    float *start = NULL, *end = NULL;
    OrtStatus *status = input(api, context, 0, dims, (const void **)&ids);
    if (!status && types) status = input(api, context, 1, type_dims, (const void **)&type_ids);
    for (int i = 0; i < 2 + types && !status; i++)
        status = input(api, context, 1 + types + i, NULL, (const void **)&rows[i]->rows);
    if (status) return status;
    if (dims[1] < 1 || dims[1] > MAX_TOKENS || dims[1] > tables.positions.count ||
        (types && (type_dims[0] != dims[0] || type_dims[1] != dims[1])))
        return api->CreateStatus(ORT_INVALID_ARGUMENT, "Int8Encoder: a window has too many tokens, or none.");
    if ((status = output(api, context, 0, dims, &start)) || (status = output(api, context, 1, dims, &end)))
        return status;
    for (int64_t at = 0; at < dims[0] * dims[1] && !status; at += dims[1]) {
        Run run = {
            .model = &kernel->weights->model, .tables = tables, .ids = ids + at, .start = start + at,
            .end = end + at, .types = types ? type_ids + at : NULL, .shape = {.tokens = (int)dims[1]},
        };
        status = run_window(kernel, context, &run);
    }
    return status;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "Int8Encoder"; }
static const char *provider(const OrtCustomOp *op) { return (void)op, NULL; /* the CPU */ }
static size_t input_count(const OrtCustomOp *op) { return (void)op, 2; }
static size_t output_count(const OrtCustomOp *op) { return (void)op, 2; }
static int input_type(const OrtCustomOp *op, size_t i) { return (void)op, i ? TENSOR_ANY : TENSOR_INT64; }
static int output_type(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, TENSOR_FLOAT; }
static int input_kind(const OrtCustomOp *op, size_t i) { return (void)op, i ? INPUT_VARIADIC : INPUT_REQUIRED; }
static int output_kind(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, INPUT_REQUIRED; }
static int memory_type(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, 0; }
static int one(const OrtCustomOp *op) { return (void)op, 1; }
static int mixed_types(const OrtCustomOp *op) { return (void)op, 0; }

static void adapt_to_cpu(void) {
    enable_tiles();
    choose_rows();
}

/* ONNX Runtime calls this for each session that the library is registered with; the threads of the session come
 * with its options, since the interface does not tell them. Operators live as long as the process. */
OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_once_t cpu = PTHREAD_ONCE_INIT;
    static EncoderOp ops[MAX_THREADS + 1];
    static OrtCustomOpDomain *domains[MAX_THREADS + 1];
    const OrtApi *api = base->GetApi(ORT_INTERFACE);
    if (!api)
        return base->GetApi(1)->CreateStatus(ORT_FAIL, "Int8Encoder needs ONNX Runtime 1.17 or later.");
    char text[16] = "1";
    size_t size = sizeof text;
    OrtStatus *status = api->GetSessionConfigEntry(options, "qa_onnx.threads", text, &size);
    if (status) api->ReleaseStatus(status); /* no such entry: one thread */
    status = NULL;
    int threads = atoi(text);
    threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    pthread_once(&cpu, adapt_to_cpu);
    pthread_mutex_lock(&lock);
    if (!domains[threads]) {
        ops[threads] = (EncoderOp){
            .threads = threads,
            .op = {
                .version = ORT_INTERFACE, .GetName = name, .GetExecutionProviderType = provider,
                .GetInputType = input_type, .GetInputTypeCount = input_count, .GetOutputType = output_type,
                .GetOutputTypeCount = output_count, .KernelDestroy = destroy, .GetInputCharacteristic = input_kind,
                .GetOutputCharacteristic = output_kind, .GetInputMemoryType = memory_type,
                .GetVariadicInputMinArity = one, .GetVariadicInputHomogeneity = mixed_types,
                .GetVariadicOutputMinArity = one, .GetVariadicOutputHomogeneity = one, .CreateKernelV2 = create,
                .KernelComputeV2 = compute,
            },
        };
        status = api->CreateCustomOpDomain("qa_onnx", &domains[threads]);
        if (!status) status = api->CustomOpDomain_Add(domains[threads], &ops[threads].op);
    }
    if (!status) status = api->AddCustomOpDomain(options, domains[threads]);
    pthread_mutex_unlock(&lock);
    return status;
}
