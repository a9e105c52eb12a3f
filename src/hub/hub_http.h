// One HTTP request at a time over libcurl, nothing followed, everything bounded; and the loop that tries again.
// Called by hub_api and hub_download.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "hub/hub_options.h"

namespace llmfp8 {

// The connection or the server failed in a way that may pass.
class HubRetry : public Error {
 public:
  explicit HubRetry(const std::string& message, double wait_seconds = 0)
      : Error(message), wait_seconds_(wait_seconds) {}
  double wait_seconds() const { return wait_seconds_; }  // Retry-After; 0: not said

 private:
  double wait_seconds_;
};

// HubOptions::stopped said so.
class HubStopped : public Error {
 public:
  using Error::Error;
};

struct ByteRange {
  std::int64_t begin = 0, end = 0;  // [begin, end)
};

struct HttpRequest {
  std::string url;
  bool head = false;
  std::optional<ByteRange> range = {};
};

struct HttpResponse {
  std::string url;  // that answered
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // where no sink took it

  // Empty: not there.
  std::string header(const std::string& name) const;
};

// Takes a piece of the body of a 200 or 206; false: no more is wanted, and the request ends without an error.
using BodySink = std::function<bool(const HttpResponse& head, std::string_view piece)>;

// One connection. Not thread-safe.
class HttpSession {
 public:
  HttpSession(const HubEnvironment& hub, const HubOptions& options);
  ~HttpSession();
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  // Throws HubRetry: no connection, cut, stalled, 408, 429, 5xx. HubStopped. Error: not http(s), a body or headers beyond the
  // bounds. Other statuses are the caller's.
  HttpResponse once(const HttpRequest& request, const BodySink& sink = {});

  // Follows redirects by hand: the token goes to the hub's own host and port alone, https never to http. A HEAD request stays at
  // the first answer that carries X-Linked-Etag or leads to another host.
  HttpResponse get(const HttpRequest& request, const BodySink& sink = {});

  void check_stopped() const;

 private:
  struct Transfer;
  std::string hub_origin_, token_;
  double stall_seconds_;
  std::function<bool()> stopped_;
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

// Counts failures in a row and waits between them: Retry-After, else a back-off that doubles.
class Patience {
 public:
  explicit Patience(const HubOptions& options) : options_(options) {}
  void made_progress() { failures_ = 0; }
  // Throws Error with the failure's message once there were too many, HubStopped while waiting.
  void wait_after(const HubRetry& failure);

 private:
  const HubOptions& options_;
  int failures_ = 0;
};

// "https://host:port" in lower case, the port always there; empty where it is not an http(s) address.
std::string origin_of(const std::string& url);
// Percent-encoded; keep_slashes for paths.
std::string url_quoted(std::string_view text, bool keep_slashes);
// What a server wrote, fit for a message: visible ASCII, at most 200 characters.
std::string shown(std::string_view text);

}  // namespace llmfp8
