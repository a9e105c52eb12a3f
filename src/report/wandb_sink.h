// Weights & Biases: a side process (tools/wandb_helper.py, its text carried in this program) runs the official SDK and
// reads metrics.jsonl. Training never waits for it, whatever becomes of it. Put together by src/cli.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "report/metrics.h"
#include "report/side_process.h"

namespace llmfp8 {

// What W&B calls a run, as run.json keeps it under "wandb": a resumed run gives the id back and so continues it.
struct WandbRun {
  std::string id;  // never empty in a sink
  std::string project;
  std::string name;  // empty: W&B invents one
  std::vector<std::string> tags = {};
  std::string mode = {};     // "online" | "offline" | "disabled"; empty until the SDK has taken the run
  std::string url = {};      // of an online run
  std::string folder = {};   // of an offline run, for `wandb sync`
  std::string problem = {};  // why W&B does not have the run; empty where it has

  nlohmann::ordered_json to_json() const;
  // Throws Error where the value is not what to_json() writes.
  static WandbRun from_json(const nlohmann::ordered_json& json);
  static std::string new_id();  // eight characters, as W&B's own
};

struct WandbOptions {
  WandbRun run;
  nlohmann::ordered_json config;       // flat: name and value
  std::filesystem::path metrics_file;  // absolute or not; its sink stands before this one
  std::filesystem::path folder;        // receives wandb/ (the SDK's files) and wandb.log; made where absent
  std::string replay_command;          // told to the user where something is left over
  std::string python;                  // wandb_python()
  double retry_s = 5;                  // before the side process is started again; doubled each time
  int retries = 4;
  double silence_s = 150;     // without an answer, after which it counts as hanging; W&B itself gives up after 90
  double finish_wait_s = 30;  // at the end of a run
  std::function<bool()> is_interrupted = {};  // ends the wait when it becomes true
};

class WandbSink : public MetricsSink {
 public:
  // Does not throw for what is wrong with Python, the SDK or the network: all of it is told in one warning.
  explicit WandbSink(WandbOptions options);
  // deliver(), then ends the side process.
  ~WandbSink() override;

  void log(const MetricRecord& record) override;
  void summary(const std::string& name, double value) override { summary_[name] = json_number(value); }
  void text(const std::string& name, const std::string& value) override;
  // Waits for a moment; what is left then is deliver()'s, so that whoever ends a run can write its files first.
  void finish() override;
  void describe(nlohmann::ordered_json& run_json) const override { run_json["wandb"] = options_.run.to_json(); }

  // Waits for what is on its way, at most finish_wait_s. Whether W&B (offline: the SDK's file) has everything. Before
  // finish(), the run counts as failed.
  bool deliver();
  pid_t side_process() const { return process_ ? process_->pid() : -1; }  // -1: none runs
  std::uintmax_t read_bytes() const { return read_bytes_; }  // of metrics_file, by the side process that runs

 private:
  enum class State { feeding, delivered, given_up };

  void start();
  void poll();
  void hear(const std::string& packet);
  void tell();
  void try_again(const std::string& why);
  void give_up(const std::string& why);
  void wait(double seconds, bool is_announced);
  std::string start_packet() const;
  std::string news_packet() const;

  WandbOptions options_;
  State state_ = State::feeding;
  std::unique_ptr<SideProcess> process_;
  std::string error_;     // what the side process said before it ended
  bool is_over_ = false;  // the run
  bool is_over_told_ = false;
  int exit_code_ = 0;                    // of the run
  std::optional<bool> was_interrupted_;  // when the first wait began
  int failures_ = 0;
  double start_at_ = 0;  // when the next side process may start; seconds, steady clock
  double heard_at_ = 0;  // when the side process last answered, or had nothing to answer
  std::uintmax_t written_bytes_ = 0;
  std::uintmax_t told_bytes_ = 0;
  std::uintmax_t read_bytes_ = 0;
  nlohmann::ordered_json summary_ = nlohmann::ordered_json::object();
};

// The Python that is asked for wandb: LLMFP8_PYTHON; else that of the .venv beside the program or one or two folders
// above it, where wandb is installed in it; else python3.
std::string wandb_python();

}  // namespace llmfp8
