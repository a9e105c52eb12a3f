// libcurl, opened on first use: its functions, typed by its own header. Called by hub_http.
#pragma once

#include <curl/curl.h>

namespace llmfp8 {

// The macros of <curl/curl.h> do not reach members; the variadic ones want exactly the type that their option names.
struct CurlLibrary {
  decltype(&::curl_global_init) global_init = nullptr;
  decltype(&::curl_easy_init) easy_init = nullptr;
  decltype(&::curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&::curl_easy_reset) easy_reset = nullptr;
  decltype(&::curl_easy_perform) easy_perform = nullptr;
  decltype(&::curl_easy_strerror) easy_strerror = nullptr;
  decltype(&::curl_slist_append) slist_append = nullptr;
  decltype(&::curl_slist_free_all) slist_free_all = nullptr;
  decltype(&::curl_version) version = nullptr;
  CURLcode (*set_option)(CURL*, CURLoption, ...) = nullptr;
  CURLcode (*get_info)(CURL*, CURLINFO, ...) = nullptr;

  // Opened once, and never closed. Throws Error: not installed, or too old. Thread-safe.
  static const CurlLibrary& get();
};

}  // namespace llmfp8
