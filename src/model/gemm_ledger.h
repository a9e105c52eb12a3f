// GemmLedger: in which format every matrix product really ran, as seen where it is called. The table printed at step 1,
// the FP8 share among the metrics and run.json come from here, not from what was asked for.
#pragma once

#include <utility>
#include <vector>

#include "fp8/recipe.h"

namespace llmfp8 {

struct GemmRecord {
  std::int64_t calls = 0;
  double flops = 0;               // 2 * tokens * in * out, of the tokens that exist
  DType a = DType::f32, b = DType::f32;
  Scaling scaling = Scaling::none;
  bool just_in_time = false;      // of either operand
};

class GemmLedger {
 public:
  explicit GemmLedger(int num_layers) : records_(static_cast<std::size_t>((num_layers * kLayerProducts + 1) * 3)) {}

  void record(Site site, GemmPass pass, const QTensor& a, const QTensor& b, double flops) {
    GemmRecord& r = records_[index(site, pass)];
    ++r.calls;
    r.flops += flops;
    r.a = a.format;
    r.b = b.format;
    r.scaling = a.scaling;
    r.just_in_time = a.just_in_time || b.just_in_time;
  }

  // Adds a pass that made the same products over other numbers of rows: of_one counts it for one token and one row of the head.
  void add(const GemmLedger& of_one, double tokens, double head_rows) {
    for (std::size_t i = 0; i < records_.size(); ++i) {
      const GemmRecord& one = of_one.records_[i];
      if (one.calls == 0) continue;
      const GemmRecord before = std::exchange(records_[i], one);
      records_[i].calls += before.calls;
      records_[i].flops = before.flops + one.flops * (i < 3 ? head_rows : tokens);
    }
  }

  const GemmRecord& find(Site site, GemmPass pass) const { return records_[index(site, pass)]; }

  // Share of the flops whose operands were both FP8; 0 before the first product.
  double fp8_share() const {
    double all = 0, fp8 = 0;
    for (const GemmRecord& r : records_) {
      all += r.flops;
      if (r.scaling != Scaling::none) fp8 += r.flops;
    }
    return all > 0 ? fp8 / all : 0.0;
  }

  // For a checkpoint: what a resumed run adds to. As many as there are products and passes.
  const std::vector<GemmRecord>& records() const { return records_; }
  void set_records(std::vector<GemmRecord> records) {
    CHECK(records.size() == records_.size(), "{} records of products, {} wanted", records.size(), records_.size());
    records_ = std::move(records);
  }

  void clear() { records_.assign(records_.size(), GemmRecord()); }

 private:
  // lm_head first, then the layers.
  static std::size_t index(Site site, GemmPass pass) {
    const int product = site.product == Product::lm_head ? 0 : 1 + site.layer * kLayerProducts + static_cast<int>(site.product);
    return static_cast<std::size_t>(product * 3 + static_cast<int>(pass));
  }

  std::vector<GemmRecord> records_;
};

}  // namespace llmfp8
