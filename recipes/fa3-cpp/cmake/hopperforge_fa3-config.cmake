# The installed package, wherever it was unpacked: hopperforge_fa3::hopperforge_fa3 is the shared library,
# hopperforge_fa3::static the other. The CUDA runtime is inside both: no toolkit is looked for.
cmake_policy(PUSH)
cmake_policy(VERSION 3.13...3.29)

get_filename_component(_hopperforge_fa3_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(hopperforge_fa3_INCLUDE_DIR "${_hopperforge_fa3_prefix}/include")
set(hopperforge_fa3_EXECUTABLE "${_hopperforge_fa3_prefix}/bin/flash_attention_exec")

foreach(_hopperforge_fa3_file "include/hopperforge/flash_attention.h" "lib/libhopperforge_fa3.so.1"
                              "lib/libhopperforge_fa3.a")
  if(NOT EXISTS "${_hopperforge_fa3_prefix}/${_hopperforge_fa3_file}")
    set(hopperforge_fa3_FOUND FALSE)
    set(hopperforge_fa3_NOT_FOUND_MESSAGE "${_hopperforge_fa3_prefix}/${_hopperforge_fa3_file} is missing")
    cmake_policy(POP)
    return()
  endif()
endforeach()

if(NOT TARGET hopperforge_fa3::hopperforge_fa3)
  add_library(hopperforge_fa3::hopperforge_fa3 SHARED IMPORTED)
  set_target_properties(
    hopperforge_fa3::hopperforge_fa3
    PROPERTIES IMPORTED_LOCATION "${_hopperforge_fa3_prefix}/lib/libhopperforge_fa3.so.1"
               IMPORTED_SONAME "libhopperforge_fa3.so.1"
               INTERFACE_INCLUDE_DIRECTORIES "${hopperforge_fa3_INCLUDE_DIR}")
endif()

if(NOT TARGET hopperforge_fa3::static)
  add_library(hopperforge_fa3::static STATIC IMPORTED)
  set_target_properties(
    hopperforge_fa3::static
    PROPERTIES IMPORTED_LOCATION "${_hopperforge_fa3_prefix}/lib/libhopperforge_fa3.a"
               IMPORTED_LINK_INTERFACE_LANGUAGES "CXX"
               INTERFACE_INCLUDE_DIRECTORIES "${hopperforge_fa3_INCLUDE_DIR}"
               INTERFACE_LINK_LIBRARIES "dl;rt;pthread")
endif()

unset(_hopperforge_fa3_file)
unset(_hopperforge_fa3_prefix)
cmake_policy(POP)
