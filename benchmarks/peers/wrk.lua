-- wrk -s wrk.lua URL -- FOLDER: post the files 1, 2, ... of FOLDER in turn, with the headers in 1.headers, ...
-- Print one line of JSON at the end.
local requests, turn = {}, 0

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local content = file:read("*a")
  file:close()
  return content
end

function init(args)
  local folder = args[1]
  while true do
    local path = folder .. "/" .. (#requests + 1)
    local body = read(path)
    if not body then break end
    local headers = {}
    for name, value in read(path .. ".headers"):gmatch("([^:\n]+): ([^\n]+)") do headers[name] = value end
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  local line = '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n'
  io.write(line:format(summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
