/* The one name of cuSPARSE that torch's headers use; see cublas_v2.h.
 * https://docs.nvidia.com/cuda/cusparse/#cusparsehandle-t
 */
#ifndef HOPPERFORGE_CUSPARSE_H
#define HOPPERFORGE_CUSPARSE_H

typedef struct cusparseContext* cusparseHandle_t;

#endif
