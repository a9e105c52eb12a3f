# Sets CUDNN_FRONTEND_INCLUDE_DIR: the folder of cudnn_frontend.h, from LLMFP8_CUDNN_FRONTEND_DIR or from the wheel in .venv
# (tools/requirements-cuda.txt). Included by with_cuda.cmake.
set(LLMFP8_CUDNN_FRONTEND_DIR "" CACHE PATH "folder that holds cudnn_frontend.h; empty: the wheel in .venv")
file(GLOB cudnn_frontend_wheel ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/include)
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${LLMFP8_CUDNN_FRONTEND_DIR} ${cudnn_frontend_wheel})
