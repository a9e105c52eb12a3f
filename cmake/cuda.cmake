# The CUDA language and its flags, for builds with LLMFP8_WITH_CUDA. Included after llmfp8.cmake.
set(CMAKE_CUDA_ARCHITECTURES ${LLMFP8_CUDA_ARCHITECTURES})
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
