# Sets CUDNN_FRONTEND_INCLUDE_DIR: the folder of cudnn_frontend.h, from LLMFP8_CUDNN_FRONTEND_DIR or from the wheel in .venv
# (tools/requirements-cuda.txt). Included by src/backend/cuda.
set(LLMFP8_CUDNN_FRONTEND_DIR "" CACHE PATH "folder that holds cudnn_frontend.h; empty: the wheel in .venv")
file(GLOB cudnn_frontend_wheel ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/include)
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${LLMFP8_CUDNN_FRONTEND_DIR} ${cudnn_frontend_wheel})
if(NOT CUDNN_FRONTEND_INCLUDE_DIR)
  message(FATAL_ERROR "cudnn_frontend.h not found: pip install --no-deps -r tools/requirements-cuda.txt into .venv, "
    "or -DLLMFP8_CUDNN_FRONTEND_DIR=<folder that holds it>")
endif()
