#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/cpu_quota.h"

namespace llmfp8 {
namespace {

using Body = std::function<void(std::int64_t, std::int64_t)>;

// Set in every thread that is inside a loop: a nested loop runs where it stands.
thread_local bool inside_loop = false;

// How long a thread looks before it sleeps: about 20 us, so that the many short loops of a model pay no system call, and a
// machine that is shared is not burnt by waiting.
constexpr int kSpins = 1000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

template <typename T>
void wait_while_equal(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
}

// One loop: cut into pieces, the first of which the caller runs.
struct Loop {
  const Body& body;
  std::int64_t count;
  std::int64_t pieces;
  std::mutex mutex;
  std::exception_ptr error;

  void run(std::int64_t piece) {
    inside_loop = true;
    try {
      body(count * piece / pieces, count * (piece + 1) / pieces);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
    inside_loop = false;
  }
};

class Workers {
 public:
  ~Workers() {
    for (auto& worker : workers_) {
      worker->quit = true;
      worker->ticket.fetch_add(1, std::memory_order_release);
      worker->ticket.notify_one();
    }
    for (auto& worker : workers_) worker->thread.join();
  }

  void run(Loop& loop) {
    const auto helpers = static_cast<std::size_t>(loop.pieces - 1);
    while (workers_.size() < helpers) add();
    pending_.store(static_cast<int>(helpers), std::memory_order_release);
    for (std::size_t i = 0; i < helpers; ++i) {
      workers_[i]->loop = &loop;
      workers_[i]->ticket.fetch_add(1, std::memory_order_release);
      workers_[i]->ticket.notify_one();
    }
    loop.run(0);
    for (int left = pending_.load(std::memory_order_acquire); left != 0; left = pending_.load(std::memory_order_acquire)) {
      wait_while_equal(pending_, left);
    }
  }

 private:
  struct Worker {
    std::atomic<std::uint32_t> ticket{0};  // counts the loops handed to this worker
    Loop* loop = nullptr;
    bool quit = false;
    std::thread thread;
  };

  void add() {
    workers_.push_back(std::make_unique<Worker>());
    Worker& worker = *workers_.back();
    const auto piece = static_cast<std::int64_t>(workers_.size());
    worker.thread = std::thread([this, &worker, piece] { serve(worker, piece); });
  }

  void serve(Worker& worker, std::int64_t piece) {
    for (std::uint32_t seen = 0;; ++seen) {
      wait_while_equal(worker.ticket, seen);
      if (worker.quit) return;
      worker.loop->run(piece);
      if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
    }
  }

  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<int> pending_{0};
};

int default_threads() {
  if (const char* text = std::getenv("LLMFP8_NUM_THREADS"); text != nullptr && std::atoi(text) > 0) return std::atoi(text);
  // torchrun sets OMP_NUM_THREADS=1 in every rank when the user did not: that would idle the machine.
  const bool under_torchrun = std::getenv("TORCHELASTIC_RUN_ID") != nullptr;
  const char* omp = std::getenv("OMP_NUM_THREADS");
  if (omp != nullptr && std::atoi(omp) > 0 && !(under_torchrun && std::string(omp) == "1")) return std::atoi(omp);
  int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  // Threads beyond a container's quota would make it stand still for part of every period.
  if (const std::optional<int> quota = cpu_quota()) cores = std::min(cores, *quota);
  const char* local = std::getenv("LOCAL_WORLD_SIZE");
  return under_torchrun && local != nullptr ? std::max(1, cores / std::max(1, std::atoi(local))) : cores;
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count = default_threads();
  return count;
}

}  // namespace

int num_threads() { return thread_count(); }

void set_num_threads(int n) { thread_count() = std::max(1, n); }

void parallel_for(std::int64_t count, std::int64_t grain, const Body& body) {
  if (count <= 0) return;
  const std::int64_t pieces =
      std::max<std::int64_t>(1, std::min<std::int64_t>(num_threads(), count / std::max<std::int64_t>(1, grain)));
  if (pieces == 1 || inside_loop) {
    body(0, count);
    return;
  }
  static std::mutex busy;
  static Workers workers;
  Loop loop{body, count, pieces, {}, nullptr};
  if (const std::unique_lock lock(busy, std::try_to_lock); lock.owns_lock()) {
    workers.run(loop);
  } else {
    // Another thread of the program is in a loop: the same cut, one piece after the other.
    for (std::int64_t piece = 0; piece < pieces; ++piece) loop.run(piece);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace llmfp8
