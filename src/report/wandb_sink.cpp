#include "report/wandb_sink.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <random>
#include <system_error>
#include <thread>

#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "report/wandb_helper_text.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The text comes over the socket, so that a list of processes does not show all of it.
constexpr const char* kReceiveHelper =
    "import socket; channel = socket.socket(fileno=3); exec(compile(channel.recv(1 << 20), 'wandb_helper.py', 'exec'))";
constexpr double kPollSeconds = 0.02;
constexpr double kShortWaitSeconds = 2;  // as a rule nothing is left to send when a run ends

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

std::uintmax_t size_of(const fs::path& file) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  return error ? 0 : size;
}

std::string packet_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

bool holds_wandb(const fs::path& venv) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(venv / "lib", ignored)) {
    if (fs::exists(entry.path() / "site-packages" / "wandb" / "__init__.py", ignored)) return true;
  }
  return false;
}

}  // namespace

Json WandbRun::to_json() const {
  return {{"id", id},     {"project", project}, {"name", name},     {"tags", tags},
          {"mode", mode}, {"url", url},         {"folder", folder}, {"problem", problem}};
}

WandbRun WandbRun::from_json(const Json& json) {
  try {
    return {.id = json.at("id"),
            .project = json.at("project"),
            .name = json.at("name"),
            .tags = json.at("tags"),
            .mode = json.at("mode"),
            .url = json.at("url"),
            .folder = json.at("folder"),
            .problem = json.at("problem")};
  } catch (const Json::exception& error) {
    fail("wandb of a run.json: {}", error.what());
  }
}

std::string WandbRun::new_id() {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device random;  // not the run's seed: two runs of one seed are two
  std::string id;
  for (int i = 0; i < 8; ++i) id += kLetters[random() % kLetters.size()];
  return id;
}

std::string wandb_python() {
  if (const char* given = std::getenv("LLMFP8_PYTHON"); given != nullptr && *given != '\0') return given;
  std::error_code error;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int i = 0; i < 3 && !error; ++i, folder = folder.parent_path()) {
    if (holds_wandb(folder / ".venv")) return (folder / ".venv" / "bin" / "python").string();
  }
  return "python3";
}

WandbSink::WandbSink(WandbOptions options) : options_(std::move(options)) {
  std::error_code ignored;  // a folder that is missing shows when the side process starts
  fs::create_directories(options_.folder, ignored);
  start();
}

WandbSink::~WandbSink() {
  try {
    // It has no more to do than to end, which is tidier than being ended.
    for (int i = deliver() ? 0 : 50; i < 50 && !process_->ended(); ++i) sleep_seconds(kPollSeconds);
  } catch (...) {
    // Memory has run out: nothing that W&B needs.
  }
}

bool WandbSink::deliver() {
  if (!is_over_) exit_code_ = 1;
  is_over_ = true;
  written_bytes_ = size_of(options_.metrics_file);
  if (state_ == State::feeding) wait(options_.finish_wait_s, true);
  if (state_ == State::feeding) give_up(fmt::format("W&B has not everything after {:g} s", options_.finish_wait_s));
  return state_ == State::delivered;
}

void WandbSink::log(const MetricRecord&) {
  if (state_ != State::feeding) return;
  if (read_bytes_ == written_bytes_) heard_at_ = now_seconds();
  written_bytes_ = size_of(options_.metrics_file);
  poll();
  tell();
}

void WandbSink::text(const std::string& name, const std::string& value) {
  summary_[name] = value;
  if (name == "state") exit_code_ = 1;  // the trainer's word for a run that did not end well
}

void WandbSink::finish() {
  is_over_ = true;
  written_bytes_ = size_of(options_.metrics_file);
  if (state_ == State::feeding) wait(std::min(kShortWaitSeconds, options_.finish_wait_s), false);
}

std::string WandbSink::start_packet() const {
  return packet_of({{"project", options_.run.project},
                    {"name", options_.run.name},
                    {"id", options_.run.id},
                    {"tags", options_.run.tags},
                    {"config", options_.config},
                    {"folder", options_.folder.string()},
                    {"metrics", options_.metrics_file.string()}});
}

std::string WandbSink::news_packet() const {
  Json json = {{"end", written_bytes_}};
  if (is_over_) {
    json["summary"] = summary_;
    json["exit_code"] = exit_code_;
  }
  return packet_of(json);
}

void WandbSink::start() {
  try {
    process_ = std::make_unique<SideProcess>(std::vector<std::string>{options_.python, "-c", kReceiveHelper},
                                             options_.folder / "wandb.log");
  } catch (const Error& error) {
    give_up(error.what());
    return;
  }
  error_.clear();
  told_bytes_ = read_bytes_ = 0;
  is_over_told_ = false;
  heard_at_ = now_seconds();
  if (process_->send(std::string(kWandbHelperText)) != Sent::yes || process_->send(start_packet()) != Sent::yes) {
    try_again("it does not listen");
    return;
  }
  tell();
}

void WandbSink::tell() {
  if (!process_ || (told_bytes_ == written_bytes_ && is_over_told_ == is_over_)) return;
  // Where its queue is full, a later packet says the same and more; where it has ended, poll() sees that.
  if (process_->send(news_packet()) != Sent::yes) return;
  told_bytes_ = written_bytes_;
  is_over_told_ = is_over_;
}

void WandbSink::poll() {
  if (process_) {
    const std::optional<std::string> end = process_->ended();  // before what it said last is read
    while (const std::optional<std::string> packet = process_->receive()) hear(*packet);
    if (state_ == State::given_up) {
      process_.reset();
    } else if (state_ == State::feeding && end) {
      try_again(error_.empty() ? *end : error_);
    } else if (state_ == State::feeding && read_bytes_ < written_bytes_ &&
               now_seconds() - heard_at_ > options_.silence_s) {
      try_again(fmt::format("no answer for {:g} s", options_.silence_s));
    }
  }
  if (!process_ && state_ == State::feeding && now_seconds() >= start_at_) start();
}

void WandbSink::hear(const std::string& packet) {
  heard_at_ = now_seconds();
  try {
    const Json json = Json::parse(packet);
    if (json.contains("run")) {
      WandbRun& run = options_.run;
      const std::string before = run.url + run.folder;
      run.mode = json["run"].at("mode");
      run.url = json["run"].at("url");
      run.folder = json["run"].at("folder");
      if (before == run.url + run.folder && run.mode != "disabled") return;
      if (run.mode == "offline")
        log::info("W&B: offline; to upload: wandb sync {}", run.folder);
      else
        log::info("W&B: {}", run.mode == "online" ? run.url : run.mode);
    } else if (json.contains("read")) {
      read_bytes_ = json["read"];
    } else if (json.contains("finished")) {
      state_ = State::delivered;
    } else if (json.contains("error")) {
      error_ = json.at("text");
      if (json["error"] == "missing")
        give_up(fmt::format("{} has no package wandb (pip install wandb; LLMFP8_PYTHON names another Python)",
                            options_.python));
      if (json["error"] == "login") give_up("not logged in to W&B (wandb login, WANDB_API_KEY or WANDB_MODE=offline)");
    }
  } catch (const Json::exception&) {
    error_ = "it said what nobody understands";
  }
}

void WandbSink::try_again(const std::string& why) {
  process_.reset();
  read_bytes_ = 0;
  if (++failures_ > options_.retries) {
    give_up(fmt::format("the side process failed {} times, last: {} (see {})", failures_, why,
                        (options_.folder / "wandb.log").string()));
    return;
  }
  const double pause = options_.retry_s * std::exp2(failures_ - 1);
  start_at_ = now_seconds() + pause;
  log::info("W&B: the side process has ended ({}); another one starts in {:g} s and misses nothing", why, pause);
}

void WandbSink::give_up(const std::string& why) {
  state_ = State::given_up;
  options_.run.problem = why;
  log::warning("--use_wandb: {}; every value is in {}, to upload it: {}", why, options_.metrics_file.string(),
               options_.replay_command);
}

void WandbSink::wait(double seconds, bool is_announced) {
  const double begin = now_seconds();
  const auto is_interrupted = [this] { return options_.is_interrupted && options_.is_interrupted(); };
  // What ended the training does not end the wait too.
  if (!was_interrupted_) was_interrupted_ = is_interrupted();
  for (;;) {
    poll();
    tell();
    if (state_ != State::feeding) return;
    const double waited = now_seconds() - begin;
    if (waited > seconds || (!*was_interrupted_ && is_interrupted())) return;
    if (is_announced && waited > std::min(1.0, seconds / 2)) {
      log::info("W&B: waiting for the upload, at most {:g} s (LLMFP8_WANDB_WAIT, Ctrl-C)", seconds);
      is_announced = false;
    }
    sleep_seconds(kPollSeconds);
  }
}

}  // namespace llmfp8
