// StepGraphs: pieces of a step that are enqueued with the same arguments again and again, recorded by the device and given to
// it as a whole. A kernel costs the host some microseconds to enqueue, which a small model or a short batch would wait for.
// Used by the engine.
#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "backend/backend.h"
#include "model/gemm_ledger.h"

namespace llmfp8 {

class StepGraphs {
 public:
  // What arguments depend on: a micro-step's capacity, the equal lengths of its documents, and whether the gradients begin
  // with it. The optimizer's piece has capacity 0.
  using Key = std::tuple<std::int64_t, std::int32_t, bool>;

  struct Piece {
    bool seen = false;  // it ran once by itself: algorithms are chosen, plans are made
    std::unique_ptr<WorkGraph> graph;
    std::unique_ptr<GemmLedger> of_one;  // its products, for one token and one row of the head
  };

  StepGraphs(Backend& backend, Stream& stream, bool on) : backend_(backend), stream_(stream), on_(on) {}

  bool on() const { return on_; }
  Piece& piece(const Key& key) { return pieces_[key]; }
  // False: the device does not record it, and nothing is tried any more.
  template <typename Enqueue>
  bool record(Piece& piece, Enqueue&& enqueue) {
    piece.graph = backend_.capture(stream_, std::forward<Enqueue>(enqueue));
    on_ = piece.graph != nullptr;
    return on_;
  }
  void launch(const Piece& piece) { backend_.launch(*piece.graph, stream_); }

 private:
  Backend& backend_;
  Stream& stream_;
  bool on_;
  std::map<Key, Piece> pieces_;
};

}  // namespace llmfp8
