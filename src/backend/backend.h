// Backend: a device's memory, streams and capabilities, and the factory of its Ops. Found by name in registry.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "backend/ops.h"
#include "core/buffer.h"

namespace llmfp8 {

// Whether a format's products run on this device, and if not, the reason as it is told to the user.
struct FormatSupport {
  bool available = false;
  std::string reason;     // empty where available and native; "emulated exactly" on the CPU
  bool can_emulate = false;  // where it is not available: Ops still runs it, on bf16 images of the codes, slowly
};

struct Capabilities {
  std::string device;         // "cpu: AMD EPYC …, 2 threads" | "cuda: NVIDIA H200, sm_90"
  std::string matmul;         // what multiplies: "oneDNN 2.6.3 bf16 (AMX)"
  FormatSupport fp8_tensor;   // per-tensor scales
  FormatSupport mxfp8;
  std::size_t memory_bytes = 0;
  // Work is done behind the host's back: a host that waits for each step leaves the device idle.
  bool asynchronous = false;
  bool graphs = false;  // capture() is worth a try
  // How many bytes of logits the head makes at once: few where they should stay in a cache, many where products are
  // faster the larger they are.
  std::size_t logits_bytes = std::size_t{64} << 20;
};

// An ordered queue of work. The CPU's runs at once.
class Stream {
 public:
  virtual ~Stream() = default;
};

// main: everything. beside: what needs no workspace of matrix products.
enum class StreamUse : std::uint8_t { main, beside };

// timed: two such events measure the time between them; others only order streams, which costs less.
enum class EventKind : std::uint8_t { ordering, timed };

class Event {
 public:
  virtual ~Event() = default;
};

// Work of a stream with the arguments that it had, to be enqueued again as a whole.
class WorkGraph {
 public:
  virtual ~WorkGraph() = default;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;             // "cpu", "cuda"
  virtual const Capabilities& capabilities() const = 0;

  // what: names the allocation in an out-of-memory error. Zero-filled.
  virtual Buffer allocate(std::size_t bytes, std::string_view what) = 0;
  virtual Buffer allocate_host(std::size_t bytes, std::string_view what) = 0;  // pinned where that exists

  virtual std::unique_ptr<Stream> create_stream(StreamUse use) = 0;
  std::unique_ptr<Stream> create_stream() { return create_stream(StreamUse::main); }
  virtual std::unique_ptr<Event> create_event(EventKind kind) = 0;
  virtual void record(Event& event, Stream& stream) = 0;
  virtual void wait(Stream& stream, Event& event) = 0;    // later work of stream waits for event
  virtual void synchronize(Event& event) = 0;             // the host waits
  virtual void synchronize(Stream& stream) = 0;
  // Between two timed events that were recorded and have happened.
  virtual double elapsed_ms(Event& from, Event& to) = 0;

  // Asynchronous; the host memory stays valid and unchanged until the stream has passed.
  virtual void copy_to_device(void* device, const void* host, std::size_t bytes, Stream& stream) = 0;
  virtual void copy_to_host(void* host, const void* device, std::size_t bytes, Stream& stream) = 0;

  // Calls `enqueue`, which has run before, and records what it gives the stream instead of doing it. Null where the device
  // keeps no such records, or not of this work; `enqueue` may then have run in part.
  virtual std::unique_ptr<WorkGraph> capture(Stream&, const std::function<void()>& /*enqueue*/) { return nullptr; }
  virtual void launch(WorkGraph&, Stream&) { fail("this backend records no work"); }

  // arena and stream outlive the Ops.
  virtual std::unique_ptr<Ops> create_ops(Stream& stream, Arena& arena) = 0;
};

}  // namespace llmfp8
