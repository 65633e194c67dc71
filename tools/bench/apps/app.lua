-- The benchmark's Lua application: does what app.wsgi does. See there. (Lua has no SHA-256, so there is no upload.)
local PIECE = ("0123456789abcdef"):rep(4096) -- 64 KiB
local STREAM_BYTES = 10 * 1024 * 1024
local PAGE_BYTES = 10240
local FILLER = ("."):rep(PAGE_BYTES) -- once: rep() copies byte by byte
local PAGE_FIELDS = {
  "HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_ACCEPT_LANGUAGE", "HTTP_COOKIE", "HTTP_REFERER",
  "HTTP_CACHE_CONTROL", "HTTP_DNT", "HTTP_X_REQUEST_ID", "HTTP_X_TRACE", "HTTP_X_TENANT",
}

local handlers = {}

function handlers.hello()
  return 200, {["Content-Type"] = "text/plain", ["Content-Length"] = 12}, "hello, world"
end

function handlers.page(env)
  local lines = {}
  for i, name in ipairs(PAGE_FIELDS) do
    lines[i] = name .. ": " .. (env[name] or "") .. "\n"
  end
  lines[#lines + 1] = "path: " .. (env.SCRIPT_NAME or "") .. (env.PATH_INFO or "") .. "\n"
  lines[#lines + 1] = "query: " .. (env.QUERY_STRING or "") .. "\n"
  local body = table.concat(lines)
  body = body .. FILLER:sub(1, PAGE_BYTES - #body)
  local id = env.HTTP_X_REQUEST_ID or ""
  return 200, {
    ["Content-Type"] = "text/html; charset=utf-8",
    ["Content-Length"] = #body,
    ["Content-Language"] = "en",
    ["Cache-Control"] = "private, max-age=0",
    ["Vary"] = "Cookie",
    ["Set-Cookie"] = {"session=" .. id .. "; HttpOnly", "seen=1; Path=/"},
    ["X-Request-Id"] = id,
    ["X-Frame-Options"] = "DENY",
    ["X-Content-Type-Options"] = "nosniff",
    ["Referrer-Policy"] = "same-origin",
    ["Content-Security-Policy"] = "default-src 'self'",
  }, body
end

function handlers.stream(env)
  local left = tonumber((env.QUERY_STRING or ""):match("bytes=(%d+)")) or STREAM_BYTES
  return 200, {["Content-Type"] = "application/octet-stream"}, function()
    if left <= 0 then
      return nil
    end
    local piece = left >= #PIECE and PIECE or PIECE:sub(1, left)
    left = left - #piece
    return piece
  end
end

local count = os.getenv("BENCH_COUNT")
if count then
  count = assert(io.open(count, "a"))
  count:setvbuf("no")
end

return function(env)
  if count then
    count:write(".")
  end
  local handler = handlers[(env.PATH_INFO or ""):match("^.*/(.*)$")]
  if handler then
    return handler(env)
  end
  return 404, {["Content-Type"] = "text/plain", ["Content-Length"] = 0}, ""
end
