# How this project declares a library and a test: one call each, so that flags live in one place.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(Threads REQUIRED)
add_library(llmfp8_flags INTERFACE)
target_include_directories(llmfp8_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
# -ffp-contract=off: a fused multiply-add where the source has none would make results depend on the instruction set.
# nvcc has options of its own: see cuda.cmake.
target_compile_options(llmfp8_flags INTERFACE
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Wall;-Wextra;-Wshadow;-Wnon-virtual-dtor;-ffp-contract=off>")
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(llmfp8_flags INTERFACE -O3)
endif()
if(LLMFP8_WERROR)
  target_compile_options(llmfp8_flags INTERFACE "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Werror>")
endif()
if(LLMFP8_SANITIZE)
  target_compile_options(llmfp8_flags INTERFACE
    "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-fsanitize=${LLMFP8_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  target_link_options(llmfp8_flags INTERFACE -fsanitize=${LLMFP8_SANITIZE})
  target_compile_definitions(llmfp8_flags INTERFACE LLMFP8_SANITIZED=1)
endif()

# llmfp8_library(core SOURCES a.cpp b.cpp DEPENDS fmt::fmt)  ->  target llmfp8_core, alias llmfp8::core
function(llmfp8_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(llmfp8_${name} STATIC ${ARG_SOURCES})
  add_library(llmfp8::${name} ALIAS llmfp8_${name})
  target_link_libraries(llmfp8_${name} PUBLIC llmfp8_flags ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE_DEPENDS})
endfunction()

# llmfp8_test(core_float8 SOURCES float8_test.cpp DEPENDS llmfp8::core [LABELS x])  ->  one GoogleTest program
function(llmfp8_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(test_${name} ${ARG_SOURCES})
  target_link_libraries(test_${name} PRIVATE llmfp8_flags ${ARG_DEPENDS} llmfp8_test_support GTest::gtest_main)
  # One ctest entry a program: starting a process per case would load the golden files hundreds of times.
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 1200)
endfunction()

# llmfp8_embed_text(out.cpp HEADER report/html/texts.h TEXTS kPage=page.html …)  ->  a .cpp in the build folder that
# defines each name as a std::string_view of its file, made again when a file changes. HEADER includes <string_view>.
function(llmfp8_embed_text output)
  cmake_parse_arguments(ARG "" "HEADER" "TEXTS" ${ARGN})
  set(texts "")
  set(files "")
  foreach(text IN LISTS ARG_TEXTS)
    string(REGEX MATCH "^([^=]+)=(.*)$" matched "${text}")
    get_filename_component(file ${CMAKE_MATCH_2} ABSOLUTE)
    list(APPEND texts "${CMAKE_MATCH_1}=${file}")
    list(APPEND files ${file})
  endforeach()
  string(REPLACE ";" "|" texts "${texts}")
  add_custom_command(OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${output}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${CMAKE_CURRENT_BINARY_DIR}/${output} -DHEADER=${ARG_HEADER} "-DTEXTS=${texts}"
      -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake
    DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake VERBATIM)
endfunction()
