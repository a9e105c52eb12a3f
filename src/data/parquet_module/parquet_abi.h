/* The C interface of the module libllmfp8_parquet.so, which alone links Arrow. Implemented by parquet_module.cpp, opened
   by data/parquet. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LLMFP8_PARQUET_ABI 3
#define LLMFP8_PARQUET_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef struct llmfp8_parquet_file llmfp8_parquet_file;
typedef struct llmfp8_parquet_stream llmfp8_parquet_stream;

/* One column of some rows as text: strings as they are, nested values and numbers as JSON text.
   Row i is data[offsets[i], offsets[i + 1]), and null where valid[i] is 0. Freed by llmfp8_parquet_free. */
typedef struct {
  const char* data;
  const int64_t* offsets; /* [rows + 1] */
  const uint8_t* valid;   /* [rows] */
  int64_t rows;
  void* owner;
} llmfp8_parquet_text;

/* Where to put the text of an error. */
typedef struct {
  char* text;
  size_t bytes;
} llmfp8_parquet_error;

LLMFP8_PARQUET_API int32_t llmfp8_parquet_abi(void);
LLMFP8_PARQUET_API const char* llmfp8_parquet_arrow_version(void);
/* NULL on error. */
LLMFP8_PARQUET_API llmfp8_parquet_file* llmfp8_parquet_open(const char* path, llmfp8_parquet_error error);
LLMFP8_PARQUET_API void llmfp8_parquet_close(llmfp8_parquet_file* file);
LLMFP8_PARQUET_API int32_t llmfp8_parquet_row_groups(const llmfp8_parquet_file* file);
LLMFP8_PARQUET_API int64_t llmfp8_parquet_row_group_rows(const llmfp8_parquet_file* file, int32_t row_group);
LLMFP8_PARQUET_API int32_t llmfp8_parquet_columns(const llmfp8_parquet_file* file);
/* Both live as long as the file. */
LLMFP8_PARQUET_API const char* llmfp8_parquet_column_name(const llmfp8_parquet_file* file, int32_t column);
LLMFP8_PARQUET_API const char* llmfp8_parquet_column_type(const llmfp8_parquet_file* file, int32_t column);
/* Some columns of a file from a row group on, in memory that is bounded however large its row groups are. The file outlives
   the stream. NULL on error. */
LLMFP8_PARQUET_API llmfp8_parquet_stream* llmfp8_parquet_stream_open(llmfp8_parquet_file* file, int32_t first_group,
                                                                     const int32_t* columns, int32_t count,
                                                                     llmfp8_parquet_error error);
/* The next `rows` rows of every column (fewer at the end of the file) into out[count], to be freed one by one. Returns 0, or 1
   with the error's text and nothing to free. */
LLMFP8_PARQUET_API int32_t llmfp8_parquet_stream_next(llmfp8_parquet_stream* stream, int64_t rows, llmfp8_parquet_text* out,
                                                      llmfp8_parquet_error error);
/* Passes over the next `rows` rows without making text of them; *skipped are fewer at the end of the file. Returns 0, or 1 with
   the error's text. */
LLMFP8_PARQUET_API int32_t llmfp8_parquet_stream_skip(llmfp8_parquet_stream* stream, int64_t rows, int64_t* skipped,
                                                      llmfp8_parquet_error error);
LLMFP8_PARQUET_API void llmfp8_parquet_stream_close(llmfp8_parquet_stream* stream);
LLMFP8_PARQUET_API void llmfp8_parquet_free(llmfp8_parquet_text* text);

#ifdef __cplusplus
}
#endif
