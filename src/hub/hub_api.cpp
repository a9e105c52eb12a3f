#include "hub/hub_api.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <nlohmann/json.hpp>

namespace llmfp8 {
namespace {

constexpr int kMaxPages = 2000;
constexpr std::size_t kMaxFiles = 500000;
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 46;

std::int64_t number_of(const std::string& text) {
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : -1;
}

// Link: <https://…>; rel="next"
std::string next_page(const std::string& link) {
  const std::size_t begin = link.find('<'), end = link.find('>');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return "";
  return link.find("rel=\"next\"", end) == std::string::npos ? "" : link.substr(begin + 1, end - begin - 1);
}

std::string normalised_etag(std::string etag) {
  if (etag.starts_with("W/")) etag = etag.substr(2);
  etag.erase(std::remove(etag.begin(), etag.end(), '"'), etag.end());
  return etag;
}

nlohmann::json parsed(const HttpResponse& response, nlohmann::json::value_t wanted) {
  const auto limit = [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) { return depth <= 32; };
  nlohmann::json json = nlohmann::json::parse(response.body, limit, false);
  const bool fits = !json.is_discarded() && json.type() == wanted;
  CHECK(fits, "{}: the answer is not the JSON that the hub's interface gives", shown(response.url));
  return json;
}

bool is_commit(const std::string& text) {
  return text.size() == 40 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

}  // namespace

bool is_hub_name(const std::string& name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == name.size() || name.size() > 200) return false;
  if (name.find('/', slash + 1) != std::string::npos || name.find("..") != std::string::npos) return false;
  if (name[0] == '.' || name[slash + 1] == '.') return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '.' || c == '_' || c == '-' || c == '/'; });
}

bool is_safe_repo_path(const std::string& path) {
  if (path.empty() || path.size() > 2048 || path.front() == '/' || path.back() == '/') return false;
  const auto bad = [](unsigned char c) { return c < 0x20 || c == 0x7F || c == '\\'; };
  if (std::any_of(path.begin(), path.end(), bad)) return false;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == ".." || part.size() > 250) return false;
    begin = end + 1;
  }
  return true;
}

HubApi::HubApi(const HubEnvironment& hub, const HubOptions& options)
    : hub_(hub), options_(options), session_(hub_, options_) {}

HttpResponse HubApi::get(const HttpRequest& request, const HubRepo& repo, const std::string& what) {
  Patience patience(options_);
  while (true) {
    try {
      HttpResponse response = session_.get(request);
      const bool moved = response.status >= 300 && response.status < 400 && request.head;
      if (response.status != 200 && !moved) refuse(response, repo, what);
      return response;
    } catch (const HubRetry& failure) {
      patience.wait_after(failure);
    }
  }
}

void HubApi::refuse(const HttpResponse& response, const HubRepo& repo, const std::string& what) const {
  const std::string code = response.header("x-error-code"), page = hub_.endpoint + repo.page_path();
  const std::string named = fmt::format("{} '{}'", repo.noun(), repo.name);
  const int status = response.status;
  const std::string login = hub_.token.empty()
                                ? "set HF_TOKEN to a token of an account that was granted access (or `hf auth login`)"
                                : fmt::format("the account of the token in {} has no access yet", hub_.token_origin);
  if (code == "GatedRepo") fail("{} is gated: accept its licence at {} and {}", named, page, login);
  if (code == "DisabledRepo") fail("{} is disabled on the hub: {}", named, page);
  if (code == "RevisionNotFound") fail("{} has no revision '{}': see {}", named, options_.revision, page);
  if (code == "EntryNotFound") fail("{} has no {}: see {}", named, what, page);
  if (code == "RepoNotFound" || (status == 401 && hub_.token.empty()) || (status == 404 && what == "its commit")) {
    fail("{} is not on {}, or it is private: check the name{}", named, hub_.endpoint,
         hub_.token.empty() ? "; for a private one set HF_TOKEN"
                            : fmt::format("; the token in {} may not see it", hub_.token_origin));
  }
  if (status == 401) fail("{} refuses the token in {}: it is wrong or has expired", hub_.endpoint, hub_.token_origin);
  if (status == 403) fail("{}: access refused; see {} ({})", named, page, login);
  fail("{}: HTTP status {} for {}{}", named, status, what,
       response.header("x-error-message").empty() ? "" : ": " + shown(response.header("x-error-message")));
}

std::string HubApi::commit(const HubRepo& repo) {
  const HttpResponse response =
      get({hub_.endpoint + repo.api_path() + "/revision/" + url_quoted(options_.revision, false)}, repo, "its commit");
  const nlohmann::json json = parsed(response, nlohmann::json::value_t::object);
  const std::string commit = json.contains("sha") && json["sha"].is_string() ? json["sha"].get<std::string>() : "";
  CHECK(is_commit(commit), "{} '{}': the hub names no commit for revision '{}'", repo.noun(), repo.name,
        options_.revision);
  return commit;
}

std::vector<HubFile> HubApi::files(const HubRepo& repo, const std::string& commit) {
  std::vector<HubFile> files;
  std::string url = hub_.endpoint + repo.api_path() + "/tree/" + commit + "?recursive=true&expand=false";
  for (int page = 0; !url.empty(); ++page) {
    CHECK(page < kMaxPages && files.size() <= kMaxFiles, "{} '{}': the list of its files does not end", repo.noun(),
          repo.name);
    const HttpResponse response = get({url}, repo, "the list of its files");
    for (const nlohmann::json& entry : parsed(response, nlohmann::json::value_t::array)) {
      const bool has_path = entry.is_object() && entry.contains("path") && entry["path"].is_string();
      if (!has_path || !entry.contains("type") || entry["type"] != "file") continue;
      HubFile file{entry["path"].get<std::string>(), 0};
      CHECK(is_safe_repo_path(file.path), "{} '{}': a file is called '{}', which no download folder takes", repo.noun(),
            repo.name, shown(file.path));
      if (entry.contains("size") && entry["size"].is_number_integer())
        file.size_bytes = entry["size"].get<std::int64_t>();
      CHECK(file.size_bytes >= 0 && file.size_bytes <= kMaxFileBytes, "{} '{}': {} is said to have {} bytes",
            repo.noun(), repo.name, shown(file.path), file.size_bytes);
      files.push_back(std::move(file));
    }
    url = next_page(response.header("link"));
    CHECK(url.empty() || origin_of(url) == origin_of(hub_.endpoint),
          "{} '{}': the list of its files goes on at another host", repo.noun(), repo.name);
  }
  return files;
}

HubFileSource HubApi::source(const HubRepo& repo, const std::string& commit, const std::string& path) {
  HubFileSource source;
  source.hub_url = hub_.endpoint + repo.page_path() + "/resolve/" + commit + "/" + url_quoted(path, true);
  const HttpResponse response = get({source.hub_url, true}, repo, path);
  const std::string linked = response.header("x-linked-etag"), linked_size = response.header("x-linked-size");
  const bool moved = response.status >= 300;
  source.url = moved ? response.header("location") : response.url;
  source.etag = normalised_etag(linked.empty() ? response.header("etag") : linked);
  source.size_bytes = number_of(linked_size.empty() && !moved ? response.header("content-length") : linked_size);
  const auto fit = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; };
  const bool named = !source.etag.empty() && source.etag.size() <= 128 && source.etag.front() != '.' &&
                     std::all_of(source.etag.begin(), source.etag.end(), fit);
  CHECK(named, "{} '{}': the hub gives {} no ETag that can name a file ('{}')", repo.noun(), repo.name, path,
        shown(source.etag));
  CHECK(source.size_bytes >= 0 && source.size_bytes <= kMaxFileBytes, "{} '{}': the hub does not say how large {} is",
        repo.noun(), repo.name, path);
  const std::string of = response.header("x-repo-commit");
  CHECK(of.empty() || of == commit, "{} '{}': {} is of commit {}, {} was asked for", repo.noun(), repo.name, path,
        shown(of), commit);
  return source;
}

}  // namespace llmfp8
