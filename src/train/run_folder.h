// The output folder of a run: refused or prepared before anything expensive happens, and its run.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

namespace llmfp8 {

class RunFolder {
 public:
  enum class Finished { refuse, allow };  // a run that is in the folder already

  // Creates the folder and proves that it can be written. Throws Error: it holds a finished run, a model or checkpoints
  // and that is to be refused; it is a file; it is not writable. Changes nothing in that case.
  RunFolder(const std::filesystem::path& folder, Finished finished);
  // Removes what the constructor created where nothing has been written into it.
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path health_file() const { return path_ / "health.jsonl"; }
  std::filesystem::path summary_file() const { return path_ / "summary.json"; }

  // Cuts a file of lines to its first `bytes`, or to its last whole line where it is shorter (false then).
  static bool cut_lines(const std::filesystem::path& file, std::uintmax_t bytes);

  // run.json: what was asked for and what really ran. Rewritten whole at each call.
  void write_run(const nlohmann::ordered_json& run) const;

 private:
  std::filesystem::path path_;
  bool created_ = false;
};

}  // namespace llmfp8
