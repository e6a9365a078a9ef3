#include "kernel_params.h"

namespace hopperforge::fa3 {

void fill_problem(const Problem& problem, const Masks& masks, const Device& device, Flash_fwd_params& kernel) {
  kernel.is_bf16 = problem.dtype == HOPPERFORGE_FA3_BFLOAT16;
  kernel.is_e4m3 = problem.dtype == HOPPERFORGE_FA3_FLOAT8_E4M3;
  kernel.b = problem.batch;
  kernel.b_k = problem.batch;
  kernel.seqlen_q = problem.seqlen_q;
  kernel.seqlen_k = problem.seqlen_k;
  kernel.total_q = problem.cu_seqlens_q != nullptr ? problem.total_q : problem.batch * problem.seqlen_q;
  kernel.total_k = problem.total_k;  // read where sequences are packed
  kernel.h = problem.heads;
  kernel.h_k = problem.heads_k;
  kernel.d = problem.head_dim;
  kernel.dv = problem.head_dim_v;
  kernel.softcap = problem.softcap;
  kernel.cu_seqlens_q = const_cast<int*>(problem.cu_seqlens_q);
  kernel.cu_seqlens_k = const_cast<int*>(problem.cu_seqlens_k);
  kernel.seqused_q = const_cast<int*>(problem.seqused_q);
  kernel.seqused_k = const_cast<int*>(problem.seqused_k);
  kernel.is_causal = masks.causal;
  kernel.is_local = masks.local;
  kernel.window_size_left = masks.left;
  kernel.window_size_right = masks.right;
  kernel.attention_chunk = masks.chunk;
  kernel.p_dropout = 1.0f;  // nothing is dropped: the kernels have no dropout
  kernel.rp_dropout = 1.0f;
  kernel.arch = device.architecture;
  kernel.num_sm = device.multiprocessors - problem.sm_margin;
}

void fill_inputs(const Tensor& q, const Extents& queries, const Tensor& k, const Extents& keys, const Tensor& v,
                 const Extents& values, Qkv_params& kernel) {
  kernel.q_ptr = q.data;
  kernel.q_batch_stride = stride(queries.batch, q.batch_stride);
  kernel.q_row_stride = stride(queries.rows, q.row_stride);
  kernel.q_head_stride = stride(queries.heads, q.head_stride);
  kernel.k_ptr = k.data;
  kernel.k_batch_stride = stride(keys.batch, k.batch_stride);
  kernel.k_row_stride = stride(keys.rows, k.row_stride);
  kernel.k_head_stride = stride(keys.heads, k.head_stride);
  kernel.v_ptr = v.data;
  kernel.v_batch_stride = stride(values.batch, v.batch_stride);
  kernel.v_row_stride = stride(values.rows, v.row_stride);
  kernel.v_head_stride = stride(values.heads, v.head_stride);
  kernel.v_dim_stride = 1;
}

void fill_output(const Tensor& out, const Extents& extents, Flash_fwd_params& kernel) {
  kernel.o_ptr = out.data;
  kernel.o_batch_stride = stride(extents.batch, out.batch_stride);
  kernel.o_row_stride = stride(extents.rows, out.row_stride);
  kernel.o_head_stride = stride(extents.heads, out.head_stride);
}

}  // namespace hopperforge::fa3
