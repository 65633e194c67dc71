-- wrk client script: cycles through requests that Python has written to a file, byte for byte (harness/requests.py).
-- Arguments after "--": the file.  Its format, repeated: decimal length, newline, that many bytes.
-- request() is one table look-up, so that varying requests cost the client no more than one repeated request.

local requests = {}
local position = 0
local total = 0

function init(args)
    local file = assert(io.open(args[1], "rb"))
    while true do
        local length = file:read("*l")
        if not length then break end
        total = total + 1
        requests[total] = file:read(tonumber(length))
    end
    file:close()
end

function request()
    position = position + 1
    if position > total then position = 1 end
    return requests[position]
end

-- One line that harness/wrk.py reads: times in microseconds.
function done(summary, latency, _)
    local e = summary.errors
    io.write(string.format(
        "BENCH requests=%d duration=%d bytes=%d connect=%d read=%d write=%d status=%d timeout=%d " ..
        "p50=%.1f p90=%.1f p99=%.1f max=%.1f\n",
        summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
        latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
