#include "hub/hub_http.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <thread>

#include "core/clock.h"
#include "core/log.h"
#include "hub/curl_library.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kMaxHeaderBytes = 256 << 10;
constexpr std::size_t kMaxBodyBytes = 64 << 20;
constexpr int kMaxRedirects = 8;
constexpr double kLongestWait = 300;
constexpr long kConnectSeconds = 15;

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  return text;
}

// The address without what follows the path: a signed address is a secret, and long.
std::string shown_url(const std::string& url) { return shown(url.substr(0, url.find_first_of("?#"))); }

std::string absolute(const std::string& base, const std::string& location) {
  if (!origin_of(location).empty()) return location;
  const std::size_t host = base.find("://") + 3;
  if (location.starts_with("//")) return base.substr(0, host - 2) + location;
  const std::size_t path = std::min(base.find_first_of("/?#", host), base.size());
  if (location.starts_with('/')) return base.substr(0, path) + location;
  fail("{}: redirects to '{}', an http or https address or a path wanted", shown_url(base), shown(location));
}

// A server that goes away while TLS writes to it would end the program otherwise: libcurl leaves that signal to its user.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    was_pending_ = ::sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    const timespec at_once = {};
    if (!was_pending_) ::sigtimedwait(&pipe_, nullptr, &at_once);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_ = {}, before_ = {};
  bool was_pending_ = false;
};

}  // namespace

std::string shown(std::string_view text) {
  std::string result(text.substr(0, 200));
  std::replace_if(
      result.begin(), result.end(), [](unsigned char c) { return c < 0x20 || c >= 0x7F; }, '?');
  return result;
}

std::string origin_of(const std::string& url) {
  const std::string scheme = lower(url.substr(0, std::min(url.find("://"), url.size())));
  if (scheme != "http" && scheme != "https") return "";
  const std::size_t begin = scheme.size() + 3;
  if (begin >= url.size()) return "";
  std::string host = lower(url.substr(begin, std::min(url.find_first_of("/?#\\", begin), url.size()) - begin));
  if (host.empty() || host.find('@') != std::string::npos) return "";
  const bool has_port =
      host.find(':', host.starts_with('[') ? std::min(host.find(']'), host.size()) : 0) != std::string::npos;
  if (!has_port) host += scheme == "https" ? ":443" : ":80";
  return scheme + "://" + host;
}

std::string url_quoted(std::string_view text, bool keep_slashes) {
  std::string result;
  for (const unsigned char c : text) {
    const bool plain =
        (c < 0x80 && std::isalnum(c)) || c == '-' || c == '_' || c == '.' || c == '~' || (c == '/' && keep_slashes);
    if (plain)
      result += static_cast<char>(c);
    else
      result += fmt::format("%{:02X}", c);
  }
  return result;
}

std::string HttpResponse::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

struct HttpSession::Handle {
  const CurlLibrary& curl = CurlLibrary::get();
  CURL* easy = curl.easy_init();
  char message[CURL_ERROR_SIZE] = {};
  ~Handle() {
    if (easy != nullptr) curl.easy_cleanup(easy);
  }
};

// What the callbacks of a running request share. Nothing may be thrown through libcurl.
struct HttpSession::Transfer {
  HttpResponse response;
  const BodySink* sink = nullptr;
  const std::function<bool()>* stopped = nullptr;
  std::size_t header_bytes = 0;
  bool enough = false, was_stopped = false, has_stalled = false;
  double stall_seconds = 0, last_byte = now_seconds();
  std::string refusal;  // why the request was cut short for good
  std::exception_ptr thrown;

  template <typename Call>
  bool guarded(const Call& call) noexcept {
    try {
      return call();
    } catch (...) {
      thrown = std::current_exception();
      return false;
    }
  }

  bool take_header(std::string_view line) {
    last_byte = now_seconds();
    header_bytes += line.size();
    if (header_bytes > kMaxHeaderBytes) {
      refusal = fmt::format("its headers are larger than {} bytes", kMaxHeaderBytes);
      return false;
    }
    if (line.starts_with("HTTP/")) {  // another one follows a 100 or a proxy's answer
      response.headers.clear();
      const std::size_t blank = line.find(' ');
      response.status = blank == std::string_view::npos ? 0 : std::atoi(std::string(line.substr(blank)).c_str());
    } else if (const std::size_t colon = line.find(':'); colon != std::string_view::npos) {
      response.headers[lower(trimmed(line.substr(0, colon)))] = trimmed(line.substr(colon + 1));
    }
    return true;
  }

  bool take_body(std::string_view piece) {
    last_byte = now_seconds();
    if (sink != nullptr && *sink && (response.status == 200 || response.status == 206)) {
      enough = !(*sink)(response, piece);
      return !enough;
    }
    if (response.body.size() + piece.size() > kMaxBodyBytes) {
      refusal = fmt::format("it answers with more than {} bytes", kMaxBodyBytes);
      return false;
    }
    response.body += piece;
    return true;
  }

  bool goes_on() {
    was_stopped = *stopped && (*stopped)();
    has_stalled = now_seconds() - last_byte > stall_seconds;
    return !was_stopped && !has_stalled;
  }

  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const std::size_t bytes = size * count;
    return transfer.guarded([&] { return transfer.take_header({data, bytes}); }) ? bytes : bytes + 1;
  }
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const std::size_t bytes = size * count;
    return transfer.guarded([&] { return transfer.take_body({data, bytes}); }) ? bytes : bytes + 1;
  }
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    auto& transfer = *static_cast<Transfer*>(self);
    return transfer.guarded([&] { return transfer.goes_on(); }) ? 0 : 1;
  }
};

HttpSession::HttpSession(const HubEnvironment& hub, const HubOptions& options)
    : hub_origin_(origin_of(hub.endpoint)),
      token_(hub.token),
      stall_seconds_(options.stall_seconds > 0 ? options.stall_seconds : hub.stall_seconds),
      stopped_(options.stopped),
      handle_(std::make_unique<Handle>()) {
  CHECK(handle_->easy != nullptr, "libcurl gives no connection");
}

HttpSession::~HttpSession() = default;

void HttpSession::check_stopped() const {
  if (stopped_ && stopped_()) throw HubStopped("the download was stopped; what there is of it is kept");
}

HttpResponse HttpSession::once(const HttpRequest& request, const BodySink& sink) {
  const std::string origin = origin_of(request.url);
  CHECK(!origin.empty(), "'{}' is not an http or https address", shown_url(request.url));
  check_stopped();
  const CurlLibrary& curl = handle_->curl;
  CURL* easy = handle_->easy;
  curl.easy_reset(easy);  // connections stay
  Transfer transfer;
  transfer.response.url = request.url;
  transfer.sink = &sink;
  transfer.stopped = &stopped_;
  transfer.stall_seconds = stall_seconds_;
  const auto set = [&](CURLoption option, auto value) {
    const CURLcode code = curl.set_option(easy, option, value);
    CHECK(code == CURLE_OK, "downloads need libcurl 7.85 or newer: option {} of the one installed: {}",
          static_cast<int>(option), curl.easy_strerror(code));
  };
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_USERAGENT, "llm-fp8");
  set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));  // parallel ranges want connections of their own
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &Transfer::on_progress);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
  set(CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(handle_->message));
  handle_->message[0] = '\0';
  if (request.head) set(CURLOPT_NOBODY, 1L);
  for (const char* name : {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    if (const char* file = std::getenv(name); file != nullptr && *file != '\0') {
      set(CURLOPT_CAINFO, file);
      break;
    }
  }
  const std::string range = request.range ? fmt::format("{}-{}", request.range->begin, request.range->end - 1) : "";
  if (request.range) set(CURLOPT_RANGE, range.c_str());
  curl_slist* headers = curl.slist_append(nullptr, "Accept-Encoding: identity");
  if (!token_.empty() && origin == hub_origin_)
    headers = curl.slist_append(headers, ("Authorization: Bearer " + token_).c_str());
  set(CURLOPT_HTTPHEADER, headers);
  const CURLcode code = [&] {
    const NoPipeSignal no_signal;
    return curl.easy_perform(easy);
  }();
  curl.set_option(easy, CURLOPT_HTTPHEADER, static_cast<curl_slist*>(nullptr));
  curl.slist_free_all(headers);

  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  if (transfer.was_stopped) throw HubStopped("the download was stopped; what there is of it is kept");
  const std::string where = shown_url(request.url);
  if (transfer.has_stalled) throw HubRetry(fmt::format("{}: nothing came for {:g} s", where, stall_seconds_));
  CHECK(transfer.refusal.empty(), "{}: {}", where, transfer.refusal);
  const int status = transfer.response.status;
  if (status == 408 || status == 429 || status >= 500) {
    const double wait = std::atof(transfer.response.header("retry-after").c_str());
    throw HubRetry(fmt::format("{}: HTTP status {}{}", where, status, status == 429 ? " (too many requests)" : ""),
                   std::isfinite(wait) ? std::clamp(wait, 0.0, kLongestWait) : 0.0);
  }
  if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && transfer.enough)) return std::move(transfer.response);
  const std::string reason = shown(handle_->message[0] != '\0' ? handle_->message : curl.easy_strerror(code));
  if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
    fail("{}: its certificate is not trusted: {} (SSL_CERT_FILE names a file of trusted ones)", where, reason);
  throw HubRetry(fmt::format("{}: {}", where, reason));
}

HttpResponse HttpSession::get(const HttpRequest& request, const BodySink& sink) {
  HttpRequest next = request;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    HttpResponse response = once(next, sink);
    const std::string location = response.header("location");
    if (response.status < 300 || response.status >= 400 || response.status == 304 || location.empty()) return response;
    const std::string url = absolute(next.url, location);
    CHECK(!next.url.starts_with("https://") || url.starts_with("https://"),
          "{}: redirects to '{}', which is not encrypted", shown_url(next.url), shown_url(url));
    response.headers["location"] = url;
    if (next.head && (!response.header("x-linked-etag").empty() || origin_of(url) != origin_of(next.url)))
      return response;
    next.url = url;
  }
  fail("{}: more than {} redirects", shown_url(request.url), kMaxRedirects);
}

void Patience::wait_after(const HubRetry& failure) {
  if (++failures_ >= options_.attempts) fail("{}; tried {} times", failure.what(), failures_);
  double seconds = failure.wait_seconds();
  if (seconds <= 0) seconds = std::min(options_.backoff_seconds * std::pow(2.0, failures_ - 1), 60.0);
  if (seconds >= 2) log::info("{}; trying again in {:.0f} s", failure.what(), seconds);
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < until) {
    if (options_.stopped && options_.stopped())
      throw HubStopped("the download was stopped; what there is of it is kept");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace llmfp8
