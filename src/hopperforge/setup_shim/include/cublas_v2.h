/* The one name of cuBLAS that torch's headers use in the API file of per-torch builds: the type of a handle.
 *
 * ATen/cuda/CUDAContextLight.h includes the headers of four CUDA libraries only to declare functions that return their
 * handles. The API file calls none of them, and the libraries' own headers come in wheels of several hundred
 * megabytes. A handle is a pointer to a structure nobody sees, so these declarations say as much as the real ones:
 * https://docs.nvidia.com/cuda/cublas/index.html#cublashandle-t
 */
#ifndef HOPPERFORGE_CUBLAS_V2_H
#define HOPPERFORGE_CUBLAS_V2_H

typedef struct cublasContext* cublasHandle_t;

#endif
