// StepQueue: the steps that the engine was given and whose results nobody has taken, each with what it takes to do it
// again: where a step is not finite, those behind it have changed nothing (StepScalars::halted). Used by the trainer.
#pragma once

#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "train/engine.h"

namespace llmfp8 {

class StepQueue {
 public:
  struct Step {
    std::int64_t number = 0;  // of the run, from 1
    double learning_rate = 0;
    std::vector<HostBatch> micro_batches;
  };

  // enqueue: gives a step to the engine, with whatever stands around that; may be called twice for a step. The engine
  // outlives the queue and gets its steps through it alone.
  StepQueue(Engine& engine, std::function<void(const Step&)> enqueue) : engine_(engine), enqueue_(std::move(enqueue)) {}

  void push(Step step) {
    enqueue_(step);
    steps_.push_back(std::move(step));
  }

  struct Done {
    Step step;
    StepResult result;
  };
  // Waits for the oldest step.
  Done pop() {
    const StepResult result = engine_.next_result();
    Done done{std::move(steps_.front()), result};
    steps_.pop_front();
    return done;
  }

  // The steps behind one that was not finite, oldest first, once the device has passed them. Pushed again, they are
  // what they would have been without it: AdamW's count has not moved.
  std::vector<Step> take_back() {
    std::vector<Step> steps;
    while (!steps_.empty()) steps.push_back(pop().step);
    return steps;
  }

 private:
  Engine& engine_;
  std::function<void(const Step&)> enqueue_;
  std::deque<Step> steps_;
};

}  // namespace llmfp8
