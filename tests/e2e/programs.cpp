#include "e2e/programs.h"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/golden.h"

namespace llmfp8::testing {
namespace {

constexpr int kLongestMilliseconds = 600'000;
constexpr int kPollMilliseconds = 2;

std::string read_all(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

[[noreturn]] void become(const std::string& path, const Args& args, const RunOptions& options,
                         const std::filesystem::path& folder) {
  const int in = open("/dev/null", O_RDONLY);
  const int out = open((folder / "out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int err = open((folder / "err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  dup2(in, 0);
  dup2(out, 1);
  dup2(err, 2);
  // Waiting threads that spin would take the cores of the tests beside this one.
  setenv("OMP_WAIT_POLICY", "passive", 1);
  // No model of this machine may be found by its hub name, and none downloaded.
  setenv("LLMFP8_CACHE_DIR", (folder / "cache").c_str(), 1);
  setenv("HF_HUB_CACHE", (folder / "hub").c_str(), 1);
  setenv("HF_HUB_OFFLINE", "1", 1);
  for (const char* launcher : {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "SLURM_STEP_NUM_TASKS"})
    unsetenv(launcher);
  for (const auto& [name, value] : options.environment) {
    if (value.empty()) {
      unsetenv(name.c_str());
    } else {
      setenv(name.c_str(), value.c_str(), 1);
    }
  }
  if (options.max_file_bytes > 0) {
    const rlimit limit{options.max_file_bytes, options.max_file_bytes};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  std::vector<char*> argv{const_cast<char*>(path.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  execv(path.c_str(), argv.data());
  _exit(127);
}

}  // namespace

std::vector<std::string> Finished::errors() const {
  std::vector<std::string> found;
  std::istringstream lines(err);
  for (std::string line; std::getline(lines, line);) {
    const bool crash = line.find("terminate called") != std::string::npos ||
                       line.find("what():") != std::string::npos || line.find("Sanitizer") != std::string::npos ||
                       line.find("Assertion") != std::string::npos;
    if (crash || line.starts_with("error:")) found.push_back(line);
  }
  return found;
}

std::size_t Finished::count(const std::string& text) const {
  std::size_t n = 0;
  for (std::size_t at = err.find(text); at != std::string::npos; at = err.find(text, at + text.size())) ++n;
  return n;
}

Finished run_program(const std::string& name, const Args& args, const RunOptions& options) {
  const std::string path = program(name).string();
  if (!std::filesystem::exists(path)) throw std::runtime_error(path + " is not built");
  const TempDir folder;
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) become(path, args, options, folder.path());

  Finished finished;
  bool timed_out = false;
  int sent = 0;
  int status = 0;
  for (int waited = 0; waitpid(child, &status, WNOHANG) == 0; waited += kPollMilliseconds) {
    if (options.interrupt_when && sent < options.times && options.interrupt_when()) {
      kill(child, options.signal);
      ++sent;
    }
    if (waited > kLongestMilliseconds && !timed_out) {
      kill(child, SIGKILL);
      timed_out = true;
    }
    usleep(kPollMilliseconds * 1000);
  }
  finished.code = timed_out ? 124 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  finished.out = read_all(folder.path() / "out");
  finished.err = read_all(folder.path() / "err");
  return finished;
}

}  // namespace llmfp8::testing
