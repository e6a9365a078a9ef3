/* FlashAttention-3 for C and C++ without a framework: the C interface, which is the library's whole interface.
 *
 * The rules of every call:
 *   - It runs on the caller's current device and stream, returns before the GPU is done, and never waits for it.
 *   - It allocates no device memory: ask for the workspace's size, and give memory that lives until the stream is past
 *     the call. Calls that run at the same time need a workspace each.
 *   - It can be captured into a CUDA graph.
 *   - Whatever is wrong is a status; hopperforge_fa3_message() says it in a sentence.
 *
 * Strides are in elements, and the innermost dimension (the head dimension) is contiguous. Pointers are to memory of
 * the device and aligned to 16 bytes, and so are all strides of more than one element's extent, in bytes. Arrays of
 * lengths and tables are int32 in memory of the device: what they hold is not checked. Keys and values beyond a
 * sequence's length (seqused_k, the rest of its last page) are read and weighed with zero: such values must be finite.
 *
 * C11 and C++17. Needs no CUDA header: a stream is a cudaStream_t.
 */
#ifndef HOPPERFORGE_FLASH_ATTENTION_C_H
#define HOPPERFORGE_FLASH_ATTENTION_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HOPPERFORGE_FA3_API __attribute__((visibility("default")))

/* The interface's version: the soname's number. */
#define HOPPERFORGE_FA3_INTERFACE 1

struct CUstream_st;
/* The same type as cudaStream_t and CUstream. */
typedef struct CUstream_st* hopperforge_fa3_stream;

typedef enum hopperforge_fa3_status {
  HOPPERFORGE_FA3_OK = 0,
  /* A null pointer, a length or count that makes no sense, or arguments that contradict each other. */
  HOPPERFORGE_FA3_INVALID_ARGUMENT = 1,
  /* A pointer or a stride is not a multiple of 16 bytes. */
  HOPPERFORGE_FA3_MISALIGNED = 2,
  /* The kernels cannot do this in any profile. */
  HOPPERFORGE_FA3_UNSUPPORTED = 3,
  /* The kernels can do this, but this library was built in a profile without it; the message names the profile. */
  HOPPERFORGE_FA3_TRIMMED = 4,
  /* The workspace is null or smaller than the call needs. */
  HOPPERFORGE_FA3_WORKSPACE_TOO_SMALL = 5,
  /* No driver, one too old for the CUDA runtime inside, or no GPU. */
  HOPPERFORGE_FA3_NO_DEVICE = 6,
  /* The current device's architecture was not compiled in. */
  HOPPERFORGE_FA3_WRONG_DEVICE = 7,
  /* A kernel did not start, or the device was already in error. */
  HOPPERFORGE_FA3_LAUNCH_FAILED = 8,
  /* The parameters are of another version of this header. */
  HOPPERFORGE_FA3_WRONG_VERSION = 9,
  /* The library failed in itself. */
  HOPPERFORGE_FA3_INTERNAL = 10
} hopperforge_fa3_status;

typedef enum hopperforge_fa3_dtype {
  HOPPERFORGE_FA3_FLOAT16 = 0,
  HOPPERFORGE_FA3_BFLOAT16 = 1,
  /* e4m3 with no infinities; the output is bfloat16. */
  HOPPERFORGE_FA3_FLOAT8_E4M3 = 2
} hopperforge_fa3_dtype;

/* A tensor of (batch, sequence, heads, head dimension): where it is, and the strides of the first three in elements.
 * batch_stride is not read where sequences are packed; for paged keys and values it is the stride of pages. */
typedef struct hopperforge_fa3_tensor {
  void* data;
  int64_t batch_stride;
  int64_t row_stride;
  int64_t head_stride;
} hopperforge_fa3_tensor;

/* Factors of float8 tensors, one for each (batch, key head): float, strides in elements; null stands for ones. */
typedef struct hopperforge_fa3_scale {
  const float* data;
  int64_t batch_stride;
  int64_t head_stride;
} hopperforge_fa3_scale;

/* Sizes, masks and lengths, the same forward and backward. */
typedef struct hopperforge_fa3_problem {
  hopperforge_fa3_dtype dtype;
  int32_t batch;
  /* Queries and keys of a sequence. Packed: of the longest one. Paged: pages of a sequence times the page size. */
  int32_t seqlen_q;
  int32_t seqlen_k;
  /* All queries and keys; read where sequences are packed (cu_seqlens). */
  int32_t total_q;
  int32_t total_k;
  /* heads_k divides heads: 1 is multi-query, less than heads is grouped-query attention. */
  int32_t heads;
  int32_t heads_k;
  int32_t head_dim;
  int32_t head_dim_v;
  /* Factor of the scores; 0 stands for one over the square root of head_dim (with qv: of head_dim + head_dim_v). */
  float softmax_scale;
  /* Above 0: scores become softcap * tanh(score / softcap). */
  float softcap;
  /* Not 0: a query sees the keys up to its own place, the last query's place being that of the last key. */
  int32_t causal;
  /* Keys that a query sees to the left and right of its own place; -1 is no limit. */
  int32_t window_left;
  int32_t window_right;
  /* Above 0: a query sees only keys of its own chunk of so many. Forward only. */
  int32_t attention_chunk;
  /* Multiprocessors to leave to others. */
  int32_t sm_margin;
  /* Packed sequences: where each begins and, at [batch], the last ends; (batch + 1). Null: not packed. */
  const int32_t* cu_seqlens_q;
  const int32_t* cu_seqlens_k;
  /* How many queries and keys of each sequence count; (batch). Null: all. */
  const int32_t* seqused_q;
  const int32_t* seqused_k;
} hopperforge_fa3_problem;

typedef struct hopperforge_fa3_forward_params {
  /* Set by hopperforge_fa3_forward_defaults; how later versions tell what the caller knows. */
  size_t size;
  hopperforge_fa3_problem problem;

  hopperforge_fa3_tensor q;   /* (batch, seqlen_q, heads, head_dim) or (total_q, heads, head_dim) */
  hopperforge_fa3_tensor k;   /* (batch, seqlen_k, heads_k, head_dim), (total_k, ...) or (pages, page_size, ...) */
  hopperforge_fa3_tensor v;   /* the same with head_dim_v */
  hopperforge_fa3_tensor out; /* (batch, seqlen_q, heads, head_dim_v) or (total_q, heads, head_dim_v) */
  /* Natural logarithm of the sums of exponentials, contiguous float: (batch, heads, seqlen_q) or (heads, total_q).
   * Null where it is not wanted. */
  float* softmax_lse;
  /* A second query over the values, for head_dim <= 64 and head_dim_v >= 256: (batch, seqlen_q, heads, head_dim_v).
   * data null: none. */
  hopperforge_fa3_tensor qv;

  hopperforge_fa3_scale q_descale;
  hopperforge_fa3_scale k_descale;
  hopperforge_fa3_scale v_descale;

  /* Keys of each sequence to leave out at its beginning; (batch). */
  const int32_t* leftpad_k;
  /* Which sequence of a cache of batch_k sequences each sequence of the batch uses; (batch). Null: its own. */
  const int32_t* batch_index_k;
  int32_t batch_k;

  /* Paged cache: (batch, seqlen_k / page_size) numbers of pages, rows page_table_stride apart; pages of page_size keys,
   * `pages` of them in k and v. Null: not paged. */
  const int32_t* page_table;
  int64_t page_table_stride;
  int32_t page_size;
  int32_t pages;

  /* Keys and values to append to the cache first, at seqused_k of each sequence, which must be given:
   * (batch, seqlen_k_new, heads_k, head_dim), or packed with cu_seqlens_k_new. k_new.data null: none. */
  hopperforge_fa3_tensor k_new;
  hopperforge_fa3_tensor v_new;
  int32_t seqlen_k_new;
  int32_t total_k_new;
  const int32_t* cu_seqlens_k_new;

  /* Rotary embedding of q and k_new: contiguous (rotary_seqlen, rotary_dim / 2) of the problem's dtype.
   * rotary_interleaved not 0: pairs are neighbours, else they are rotary_dim / 2 apart. Null: none. */
  const void* rotary_cos;
  const void* rotary_sin;
  const int32_t* seqlens_rotary; /* (batch): where each sequence begins; null: at seqused_k */
  int32_t rotary_seqlen;
  int32_t rotary_dim;
  int32_t rotary_interleaved;

  /* Into how many parts the keys are split, to be computed at the same time; 0: chosen by the library. At most 256. */
  int32_t num_splits;
  /* Whether query heads of one key head share tiles: 0, 1, or -1: chosen by the library. */
  int32_t pack_gqa;
} hopperforge_fa3_forward_params;

typedef struct hopperforge_fa3_backward_params {
  /* Set by hopperforge_fa3_backward_defaults. */
  size_t size;
  hopperforge_fa3_problem problem;

  hopperforge_fa3_tensor q;
  hopperforge_fa3_tensor k;
  hopperforge_fa3_tensor v;
  hopperforge_fa3_tensor out;  /* what forward gave */
  hopperforge_fa3_tensor dout; /* the gradient of out, of out's shape */
  const float* softmax_lse;    /* what forward gave */
  hopperforge_fa3_tensor dq;   /* results, of the shapes of q, k and v */
  hopperforge_fa3_tensor dk;
  hopperforge_fa3_tensor dv;
  /* Not 0: the same bits in every run, slower. Not for head dimensions above 192. */
  int32_t deterministic;
} hopperforge_fa3_backward_params;

/* What the library was built of; the texts live as long as the library. */
typedef struct hopperforge_fa3_build {
  int32_t interface_version;
  const char* version;  /* of the package */
  const char* profile;  /* which features are compiled in */
  const char* switches; /* the switches of the profile, with blanks between */
  const char* cuda;     /* the toolkit that compiled the kernels, and of the runtime inside */
} hopperforge_fa3_build;

HOPPERFORGE_FA3_API hopperforge_fa3_build hopperforge_fa3_get_build(void);

/* The name of a status, such as "TRIMMED". Never null. */
HOPPERFORGE_FA3_API const char* hopperforge_fa3_status_name(hopperforge_fa3_status status);

/* What the last call of this thread that did not return OK had to say. Never null; lives until the next such call. */
HOPPERFORGE_FA3_API const char* hopperforge_fa3_message(void);

/* Fill in what most calls want: no masks, no windows, automatic choices; data pointers null, sizes 0. */
HOPPERFORGE_FA3_API void hopperforge_fa3_forward_defaults(hopperforge_fa3_forward_params* params);
HOPPERFORGE_FA3_API void hopperforge_fa3_backward_defaults(hopperforge_fa3_backward_params* params);

/* Whether a call can be served, without a GPU: everything that does not depend on the device is checked. */
HOPPERFORGE_FA3_API hopperforge_fa3_status hopperforge_fa3_forward_check(const hopperforge_fa3_forward_params* params);
HOPPERFORGE_FA3_API hopperforge_fa3_status
hopperforge_fa3_backward_check(const hopperforge_fa3_backward_params* params);

/* The bytes of workspace that a call needs on the current device; may be 0. */
HOPPERFORGE_FA3_API hopperforge_fa3_status
hopperforge_fa3_forward_workspace(const hopperforge_fa3_forward_params* params, size_t* bytes);
HOPPERFORGE_FA3_API hopperforge_fa3_status
hopperforge_fa3_backward_workspace(const hopperforge_fa3_backward_params* params, size_t* bytes);

/* Put attention, or its gradients, on the stream. `workspace` is memory of the device, aligned to 256 bytes, of at
 * least the bytes asked for above; its content need not be anything. */
HOPPERFORGE_FA3_API hopperforge_fa3_status hopperforge_fa3_forward(const hopperforge_fa3_forward_params* params,
                                                                   void* workspace, size_t workspace_bytes,
                                                                   hopperforge_fa3_stream stream);
HOPPERFORGE_FA3_API hopperforge_fa3_status hopperforge_fa3_backward(const hopperforge_fa3_backward_params* params,
                                                                    void* workspace, size_t workspace_bytes,
                                                                    hopperforge_fa3_stream stream);

#ifdef __cplusplus
}
#endif

#endif
