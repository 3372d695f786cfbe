/* Owns what the operator needs of ONNX Runtime's C interface; knows nothing of the encoder.
 *
 * The interface is a table of functions that ONNX Runtime only ever appends to and hands out by version; here are
 * the entries used, each at its place in that table, and the descriptor of a custom operator. Facts of the
 * public header onnxruntime_c_api.h, version 17 of the interface (ONNX Runtime 1.17).
 */
#ifndef QA_ORT_H
#define QA_ORT_H

#include <stddef.h>
#include <stdint.h>

enum { ORT_INTERFACE = 17, ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };
enum { TENSOR_ANY = 0, TENSOR_FLOAT = 1, TENSOR_UINT8 = 2, TENSOR_INT8 = 3, TENSOR_INT64 = 7 };
enum { INPUT_REQUIRED = 0, INPUT_VARIADIC = 2 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtCustomOp OrtCustomOp;

#define SKIP(first, next) void *unused_##first[(next) - (first)]
typedef struct {
    OrtStatus *(*CreateStatus)(int code, const char *message); /* 0 */
    SKIP(1, 26);
    OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **domain); /* 26 */
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    SKIP(29, 51);
    OrtStatus *(*GetTensorMutableData)(const OrtValue *value, void **data); /* 51 */
    SKIP(52, 60);
    OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info, int *type); /* 60 */
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *count);
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *dims, size_t count);
    SKIP(63, 65);
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **info); /* 65 */
    SKIP(66, 85);
    OrtStatus *(*KernelInfoGetAttribute_float)(const OrtKernelInfo *info, const char *name, float *value); /* 85 */
    OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name, int64_t *value);
    SKIP(87, 90);
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **value);
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *dims,
                                          size_t count, OrtValue **value); /* 91 */
    SKIP(92, 93);
    void (*ReleaseStatus)(OrtStatus *status); /* 93 */
    SKIP(94, 99);
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info); /* 99 */
    SKIP(100, 162);
    OrtStatus *(*KernelInfoGetAttributeArray_float)(const OrtKernelInfo *info, const char *name, float *values,
                                                    size_t *count); /* 162 */
    OrtStatus *(*KernelInfoGetAttributeArray_int64)(const OrtKernelInfo *info, const char *name, int64_t *values,
                                                    size_t *count);
    SKIP(164, 230);
    OrtStatus *(*KernelInfo_GetInputCount)(const OrtKernelInfo *info, size_t *count); /* 230 */
    SKIP(231, 238);
    OrtStatus *(*GetSessionConfigEntry)(const OrtSessionOptions *options, const char *key, char *value,
                                        size_t *size); /* 238 */
    SKIP(239, 249);
    OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *info, size_t index, int *is_constant,
                                                    const OrtValue **value); /* 249 */
    SKIP(250, 274);
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context, void (*body)(void *, size_t),
                                            size_t count, size_t batches, void *data); /* 274 */
} OrtApi;
#undef SKIP

#define AT(name, index) _Static_assert(offsetof(OrtApi, name) == (index) * sizeof(void *), #name)
AT(CreateCustomOpDomain, 26);
AT(GetTensorMutableData, 51);
AT(GetTensorElementType, 60);
AT(GetTensorTypeAndShape, 65);
AT(KernelInfoGetAttribute_float, 85);
AT(KernelContext_GetOutput, 91);
AT(ReleaseTensorTypeAndShapeInfo, 99);
AT(KernelInfoGetAttributeArray_int64, 163);
AT(KernelInfo_GetInputCount, 230);
AT(GetSessionConfigEntry, 238);
AT(KernelInfoGetConstantInput_tensor, 249);
AT(KernelContext_ParallelFor, 274);
#undef AT

typedef struct {
    const OrtApi *(*GetApi)(uint32_t version); /* NULL for a version that it does not have */
    const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
    uint32_t version; /* of the interface that this descriptor is written for */
    void *(*CreateKernel)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
    const char *(*GetName)(const OrtCustomOp *op);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *op);
    int (*GetInputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetInputTypeCount)(const OrtCustomOp *op);
    int (*GetOutputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *op);
    void (*KernelCompute)(void *kernel, OrtKernelContext *context);
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetInputMemoryType)(const OrtCustomOp *op, size_t index);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *op);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *op);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *op);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *op);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel);
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);
    OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *op, void *context);
    int (*GetStartVersion)(const OrtCustomOp *op);
    int (*GetEndVersion)(const OrtCustomOp *op);
};

#endif
