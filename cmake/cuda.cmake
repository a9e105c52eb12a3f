# The CUDA language and its flags, for builds with LLMFP8_WITH_CUDA. Included after llmfp8.cmake.
# `all`: 8.0, 8.9, 9.0, 10.x and 12.x. 'a' code runs on exactly one architecture, 'f' code on its family.
if(LLMFP8_CUDA_ARCHITECTURES STREQUAL "all")
  set(LLMFP8_CUDA_ARCHITECTURES 80-real 89-real 90a-real 100f-real 120f-real)
endif()
if(LLMFP8_CUDA_ARCHITECTURES MATCHES "[0-9]f")
  # CMake 3.25 refuses the names of families, so nvcc is told here.
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  foreach(architecture IN LISTS LLMFP8_CUDA_ARCHITECTURES)
    if(NOT architecture MATCHES "^([0-9]+[af]?)(-real|-virtual)?$")
      message(FATAL_ERROR "LLMFP8_CUDA_ARCHITECTURES: ${architecture}, wanted for example 90a-real or 100f-real")
    endif()
    set(code "sm_${CMAKE_MATCH_1}")
    if(CMAKE_MATCH_2 STREQUAL "-virtual")
      set(code "compute_${CMAKE_MATCH_1}")
    elseif(NOT CMAKE_MATCH_2)
      set(code "compute_${CMAKE_MATCH_1},sm_${CMAKE_MATCH_1}")
    endif()
    string(APPEND CMAKE_CUDA_FLAGS " --generate-code=arch=compute_${CMAKE_MATCH_1},code=[${code}]")
  endforeach()
else()
  set(CMAKE_CUDA_ARCHITECTURES ${LLMFP8_CUDA_ARCHITECTURES})
endif()
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

# CMake 3.25 knows the CUDA dialects up to 17; nvcc itself takes C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)

# fmad: as -ffp-contract=off on the host, so that a fused kernel, its primitives and the CPU give the same bytes. A kernel
# that wants fused multiply-adds calls fmaf. Division and square root stay IEEE (no fast-math): scales are made with them.
target_compile_options(llmfp8_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;--expt-relaxed-constexpr;-Xcompiler=-Wall,-Wextra,-ffp-contract=off>")
# fmt takes nvcc for a compiler without constexpr, which its C++20 half does not compile with.
target_compile_definitions(llmfp8_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1>")
