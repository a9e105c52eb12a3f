// zlib and libzstd behind one loop.
#include "data/decompress.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "core/error.h"

namespace llmfp8 {

namespace {

constexpr std::size_t kInputBytes = std::size_t{256} << 10;
// 128 MB, what `zstd -d` takes without being asked; more have a few archives made with --long or --ultra.
constexpr int kMostWindowLog = 27;

struct Piece {
  const char* in;
  std::size_t in_bytes;
  char* out;
  std::size_t out_bytes;
};

}  // namespace

class DecompressedFile::Decoder {
 public:
  virtual ~Decoder() = default;
  // Moves the piece's ends on by what was taken and given. What is wrong with the input; empty where nothing is.
  virtual std::string step(Piece& piece) = 0;
  virtual const char* part() const = 0;

  bool is_inside() const { return is_inside_; }    // of a member or frame
  bool holds_more() const { return holds_more_; }  // may give output without input

 protected:
  bool is_inside_ = false, holds_more_ = false;
};

namespace {

class GzipDecoder : public DecompressedFile::Decoder {
 public:
  GzipDecoder() {
    constexpr int kGzipAlone = 16;
    CHECK(inflateInit2(&stream_, MAX_WBITS + kGzipAlone) == Z_OK, "zlib: out of memory");
  }
  ~GzipDecoder() override { inflateEnd(&stream_); }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;
  const char* part() const override { return "gzip member"; }

  std::string step(Piece& piece) override {
    if (!is_inside_ && has_member_) {
      while (piece.in_bytes > 0 && *piece.in == 0) {
        ++piece.in;
        --piece.in_bytes;
      }
      if (piece.in_bytes == 0) return "";
    }
    if (!is_inside_) inflateReset(&stream_);
    is_inside_ = has_member_ = true;
    // The pieces are far smaller than 4 GB; zlib's older interface takes no const.
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(piece.in));
    stream_.avail_in = static_cast<uInt>(piece.in_bytes);
    stream_.next_out = reinterpret_cast<Bytef*>(piece.out);
    stream_.avail_out = static_cast<uInt>(piece.out_bytes);
    const int status = inflate(&stream_, Z_NO_FLUSH);
    piece.in += piece.in_bytes - stream_.avail_in;
    piece.in_bytes = stream_.avail_in;
    piece.out += piece.out_bytes - stream_.avail_out;
    piece.out_bytes = stream_.avail_out;
    holds_more_ = status == Z_OK && stream_.avail_out == 0;
    if (status == Z_STREAM_END) is_inside_ = false;
    if (status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR) return "";
    if (status == Z_NEED_DICT) return "a preset dictionary is wanted";
    return stream_.msg != nullptr ? stream_.msg : "zlib: out of memory";
  }

 private:
  z_stream stream_{};
  bool has_member_ = false;
};

class ZstdDecoder : public DecompressedFile::Decoder {
 public:
  ZstdDecoder() : stream_(ZSTD_createDStream()) {
    CHECK(stream_ != nullptr, "libzstd: out of memory");
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, kMostWindowLog);
  }
  ~ZstdDecoder() override { ZSTD_freeDStream(stream_); }
  ZstdDecoder(const ZstdDecoder&) = delete;
  ZstdDecoder& operator=(const ZstdDecoder&) = delete;
  const char* part() const override { return "Zstandard frame"; }

  std::string step(Piece& piece) override {
    ZSTD_inBuffer in{piece.in, piece.in_bytes, 0};
    ZSTD_outBuffer out{piece.out, piece.out_bytes, 0};
    const std::size_t status = ZSTD_decompressStream(stream_, &out, &in);
    piece = {piece.in + in.pos, in.size - in.pos, piece.out + out.pos, out.size - out.pos};
    if (ZSTD_isError(status)) {
      if (ZSTD_getErrorCode(status) == ZSTD_error_frameParameter_windowTooLarge)
        return fmt::format("its window is larger than {} MB; pack it without --long or --ultra",
                           (1 << kMostWindowLog) >> 20);
      return ZSTD_getErrorName(status);
    }
    is_inside_ = status != 0;
    holds_more_ = is_inside_ && piece.out_bytes == 0;
    return "";
  }

 private:
  ZSTD_DStream* stream_;
};

}  // namespace

Compression compression_of(const std::filesystem::path& path) {
  const std::filesystem::path extension = path.extension();
  return extension == ".gz" ? Compression::gzip : extension == ".zst" ? Compression::zstd : Compression::none;
}

DecompressedFile::DecompressedFile(const std::filesystem::path& path)
    : name_(path.string()), input_(std::make_unique<char[]>(kInputBytes)) {
  const Compression compression = compression_of(path);
  CHECK(compression != Compression::none, "{}: a .gz or .zst file is wanted", name_);
  if (compression == Compression::gzip)
    decoder_ = std::make_unique<GzipDecoder>();
  else
    decoder_ = std::make_unique<ZstdDecoder>();
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK(file_ >= 0, "{}: cannot be opened: {}", name_, std::strerror(errno));
  struct stat status {};
  const bool is_regular = fstat(file_, &status) == 0 && S_ISREG(status.st_mode);
  const bool has_bytes = status.st_size > 0;
  if (!is_regular || !has_bytes) close(file_);  // no destructor runs for what a constructor leaves
  CHECK(is_regular, "{}: not a regular file", name_);
  CHECK(has_bytes, "{}: 0 bytes; even nothing takes some as a {}", name_, decoder_->part());
  posix_fadvise(file_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

DecompressedFile::~DecompressedFile() { close(file_); }

void DecompressedFile::refill() {
  behind_ += static_cast<std::int64_t>(filled_);
  at_ = filled_ = 0;
  ssize_t got = 0;
  do got = ::read(file_, input_.get(), kInputBytes);
  while (got < 0 && errno == EINTR);
  CHECK(got >= 0, "{}: byte {}: cannot be read: {}", name_, behind_, std::strerror(errno));
  filled_ = static_cast<std::size_t>(got);
  is_at_end_ = got == 0;
}

std::size_t DecompressedFile::read(char* out, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes) {
    if (at_ == filled_ && !decoder_->holds_more()) {
      if (!is_at_end_) refill();
      if (is_at_end_) {
        CHECK(!decoder_->is_inside(), "{}: cut off: it ends at byte {} inside a {}", name_, behind_, decoder_->part());
        break;
      }
    }
    Piece piece{input_.get() + at_, filled_ - at_, out + done, std::min(bytes - done, std::size_t{1} << 30)};
    const char* const start = piece.out;
    const std::string fault = decoder_->step(piece);
    at_ = filled_ - piece.in_bytes;
    done += static_cast<std::size_t>(piece.out - start);
    CHECK(fault.empty(), "{}: byte {}: no valid {}: {}", name_, behind_ + static_cast<std::int64_t>(at_),
          decoder_->part(), fault);
  }
  return done;
}

}  // namespace llmfp8
