// dlopen of libcurl.so.4, of either flavour of TLS.
#include "hub/curl_library.h"

#include <dlfcn.h>

#include "core/error.h"

namespace llmfp8 {
namespace {

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  CHECK(function != nullptr, "downloads need libcurl 7.85 or newer; the one installed has no {}", name);
}

CurlLibrary open_library() {
  void* library = nullptr;
  for (const char* name : {"libcurl.so.4", "libcurl-gnutls.so.4"}) {
    if (library == nullptr) library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  CHECK(library != nullptr,
        "downloads need libcurl.so.4, which is not installed (Debian: apt-get install libcurl4); a folder or file that "
        "is here "
        "already needs none");
  CurlLibrary curl;
  find(library, "curl_global_init", curl.global_init);
  find(library, "curl_easy_init", curl.easy_init);
  find(library, "curl_easy_cleanup", curl.easy_cleanup);
  find(library, "curl_easy_reset", curl.easy_reset);
  find(library, "curl_easy_perform", curl.easy_perform);
  find(library, "curl_easy_strerror", curl.easy_strerror);
  find(library, "curl_slist_append", curl.slist_append);
  find(library, "curl_slist_free_all", curl.slist_free_all);
  find(library, "curl_version", curl.version);
  find(library, "curl_easy_setopt", curl.set_option);
  find(library, "curl_easy_getinfo", curl.get_info);
  CHECK(curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, "libcurl cannot be initialised");
  return curl;
}

}  // namespace

const CurlLibrary& CurlLibrary::get() {
  static const CurlLibrary library = open_library();
  return library;
}

}  // namespace llmfp8
