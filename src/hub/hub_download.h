// One file from the hub into blobs/<etag>: resumed, in parallel ranges, checked. Called by hub_repository.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "hub/hub_api.h"

namespace llmfp8 {

struct BlobDownload {
  std::string what;  // "model 'org/name': model.safetensors", for messages
  HubFileSource source;
  std::filesystem::path blob;                        // <blob>.incomplete holds a prefix of its bytes until it is whole
  std::function<void(std::int64_t bytes)> progress;  // bytes on the disk so far, those of an earlier attempt too
};

// Throws Error: refused, too many failures, a wrong hash twice; HubStopped. The prefix is kept unless its hash is wrong.
// The caller holds the blob's lock. refuse: of an answer that no patience helps with.
void download_blob(const BlobDownload& download, const HubEnvironment& hub, const HubOptions& options,
                   const std::function<void(const HttpResponse&)>& refuse);

}  // namespace llmfp8
