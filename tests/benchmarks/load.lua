-- SPDX-License-Identifier: AGPL-3.0-or-later
-- Posts bodies read from FILE, each <u32 little-endian length><bytes>, to the path UPATH; each body once.
-- When there are no more, it reads UPATH: run.py takes a run in which that happened for a failure.
local file = assert(io.open(os.getenv("FILE"), "rb"))
local path = os.getenv("UPATH")
local headers = { ["Content-Type"] = os.getenv("CONTENT_TYPE") or "application/msgpack" }

function request()
  local head = file:read(4)
  if not head then
    return wrk.format("GET", path)
  end
  local a, b, c, d = head:byte(1, 4)
  return wrk.format("POST", path, headers, file:read(a + b * 256 + c * 65536 + d * 16777216))
end
