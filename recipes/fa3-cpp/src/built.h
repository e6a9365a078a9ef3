// What this build holds: upstream's switches as constants, so that the rest of the front is C++ and not macros.
#ifndef HOPPERFORGE_FA3_BUILT_H
#define HOPPERFORGE_FA3_BUILT_H

#if !defined(HOPPERFORGE_PROFILE) || !defined(HOPPERFORGE_VERSION) || !defined(HOPPERFORGE_CUDA)
#error "define HOPPERFORGE_PROFILE, HOPPERFORGE_VERSION and HOPPERFORGE_CUDA as strings: what this build is"
#endif

namespace hopperforge::fa3 {

#ifdef FLASHATTENTION_DISABLE_BACKWARD
inline constexpr bool kBackward = false;
#else
inline constexpr bool kBackward = true;
#endif

#ifdef FLASHATTENTION_DISABLE_SPLIT
inline constexpr bool kSplit = false;
#else
inline constexpr bool kSplit = true;
#endif

#ifdef FLASHATTENTION_DISABLE_PAGEDKV
inline constexpr bool kPagedKV = false;
#else
inline constexpr bool kPagedKV = true;
#endif

#ifdef FLASHATTENTION_DISABLE_APPENDKV
inline constexpr bool kAppendKV = false;
#else
inline constexpr bool kAppendKV = true;
#endif

#ifdef FLASHATTENTION_DISABLE_LOCAL
inline constexpr bool kLocal = false;
#else
inline constexpr bool kLocal = true;
#endif

#ifdef FLASHATTENTION_DISABLE_SOFTCAP
inline constexpr bool kSoftcap = false;
#else
inline constexpr bool kSoftcap = true;
#endif

#ifdef FLASHATTENTION_DISABLE_PACKGQA
inline constexpr bool kPackGQA = false;
#else
inline constexpr bool kPackGQA = true;
#endif

#ifdef FLASHATTENTION_DISABLE_VARLEN
inline constexpr bool kVarlen = false;
#else
inline constexpr bool kVarlen = true;
#endif

#ifdef FLASHATTENTION_DISABLE_FP16
inline constexpr bool kFP16 = false;
#else
inline constexpr bool kFP16 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_FP8
inline constexpr bool kFP8 = false;
#else
inline constexpr bool kFP8 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_HDIM64
inline constexpr bool kHDim64 = false;
#else
inline constexpr bool kHDim64 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_HDIM96
inline constexpr bool kHDim96 = false;
#else
inline constexpr bool kHDim96 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_HDIM128
inline constexpr bool kHDim128 = false;
#else
inline constexpr bool kHDim128 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_HDIM192
inline constexpr bool kHDim192 = false;
#else
inline constexpr bool kHDim192 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_HDIM256
inline constexpr bool kHDim256 = false;
#else
inline constexpr bool kHDim256 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_HDIMDIFF64
inline constexpr bool kHDimDiff64 = false;
#else
inline constexpr bool kHDimDiff64 = true;
#endif

#ifdef FLASHATTENTION_DISABLE_HDIMDIFF192
inline constexpr bool kHDimDiff192 = false;
#else
inline constexpr bool kHDimDiff192 = true;
#endif

// Upstream spells the switch DISABLE_SM80 and the macro SM8x.
#ifdef FLASHATTENTION_DISABLE_SM8x
inline constexpr bool kSM80 = false;
#else
inline constexpr bool kSM80 = true;
#endif

// The switches that are on, as the profile lists them.
const char* switches();

}  // namespace hopperforge::fa3

#endif
