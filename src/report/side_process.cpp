#include "report/side_process.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr int kChildSocket = 3;
constexpr std::size_t kLargestPacket = 64 << 10;  // of what it sends

void sleep_milliseconds(long milliseconds) {
  const timespec duration{0, milliseconds * 1'000'000};
  nanosleep(&duration, nullptr);
}

// What posix_spawn is told; frees what it allocates.
struct SpawnSettings {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;

  SpawnSettings(int socket, const std::string& log_file) {
    posix_spawn_file_actions_init(&actions);
    // First, since the socket may have one of the numbers below.
    posix_spawn_file_actions_adddup2(&actions, socket, kChildSocket);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, kChildSocket + 1);
    posix_spawnattr_init(&attributes);
    // It takes the signals that this process's threads have blocked (train/interrupt.h).
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
};

}  // namespace

SideProcess::SideProcess(const std::vector<std::string>& argv, const std::filesystem::path& log_file) {
  std::vector<char*> pointers;
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "{}: no socket for it ({})", argv[0],
        std::strerror(errno));
  int error = 0;
  {
    const SpawnSettings settings(ends[1], log_file.string());
    error = posix_spawnp(&pid_, argv[0].c_str(), &settings.actions, &settings.attributes, pointers.data(), environ);
  }
  close(ends[1]);
  socket_ = ends[0];
  if (error == 0) return;
  close(socket_);
  fail("{}: cannot be started ({})", argv[0], std::strerror(error));
}

SideProcess::~SideProcess() {
  kill();
  close(socket_);
}

Sent SideProcess::send(std::string_view packet) {
  // A closed socket would otherwise end this program with SIGPIPE.
  if (::send(socket_, packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Sent::yes;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS ? Sent::full : Sent::closed;
}

std::optional<std::string> SideProcess::receive() {
  std::string packet(kLargestPacket, '\0');
  ssize_t size = recv(socket_, packet.data(), packet.size(), MSG_DONTWAIT);
  // Said once where it ended without reading all that it was sent; what it said itself comes behind that.
  if (size < 0 && errno == ECONNRESET) size = recv(socket_, packet.data(), packet.size(), MSG_DONTWAIT);
  if (size <= 0) return std::nullopt;
  packet.resize(static_cast<std::size_t>(size));
  return packet;
}

std::optional<std::string> SideProcess::ended() {
  if (end_) return end_;
  int status = 0;
  const pid_t pid = waitpid(pid_, &status, WNOHANG);
  if (pid == 0) return std::nullopt;
  // Where something else has waited for it, only that it ended is known.
  if (pid < 0)
    end_ = "an unknown end";
  else if (WIFSIGNALED(status))
    end_ = fmt::format("signal {}", WTERMSIG(status));
  else
    end_ = fmt::format("exit code {}", WEXITSTATUS(status));
  return end_;
}

void SideProcess::kill() {
  if (ended()) return;
  ::kill(-pid_, SIGKILL);
  // A process that waits for a file server outlives SIGKILL for a while: it is not waited for.
  for (int i = 0; i < 100 && !ended(); ++i) sleep_milliseconds(5);
}

}  // namespace llmfp8
