// A program beside this one that must never hold it up: started, spoken to and ended without waiting. Used by WandbSink.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace llmfp8 {

enum class Sent { yes, full, closed };  // full: its queue is; try again later

// The two talk over a socket that keeps packets whole (descriptor 3 of the side process). The side process has a session
// of its own, so that Ctrl-C does not reach it, the environment of this one, and none of its other open files.
class SideProcess {
 public:
  // argv[0] is looked for in PATH. log_file receives its standard output and error, appended. Throws Error: it cannot be
  // started.
  SideProcess(const std::vector<std::string>& argv, const std::filesystem::path& log_file);
  ~SideProcess();  // kill()
  SideProcess(const SideProcess&) = delete;
  SideProcess& operator=(const SideProcess&) = delete;

  // Never waits. A packet is at most about 200 KB.
  Sent send(std::string_view packet);

  // The next packet, where one has come.
  std::optional<std::string> receive();

  // How it ended, "signal 9" or "exit code 1"; nothing while it runs.
  std::optional<std::string> ended();

  // Ends it at once, stopped or not, with the processes of its group.
  void kill();

  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int socket_ = -1;
  std::optional<std::string> end_;
};

}  // namespace llmfp8
