/* The one name of cuBLASLt that torch's headers use; see cublas_v2.h.
 * https://docs.nvidia.com/cuda/cublas/index.html#cublaslthandle-t
 */
#ifndef HOPPERFORGE_CUBLASLT_H
#define HOPPERFORGE_CUBLASLT_H

typedef struct cublasLtContext* cublasLtHandle_t;

#endif
