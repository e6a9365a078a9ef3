/* The one name of cuSOLVER that torch's headers use; see cublas_v2.h.
 * https://docs.nvidia.com/cuda/cusolver/index.html#cusolverdn-library-data-types
 */
#ifndef HOPPERFORGE_CUSOLVERDN_H
#define HOPPERFORGE_CUSOLVERDN_H

typedef struct cusolverDnContext* cusolverDnHandle_t;

#endif
