-- The conformance application in Lua, in the manner of WSAPI.

local scratch = os.getenv("SCRATCH")
local paths = {}

local function token_of(env)
  return ("&" .. env.QUERY_STRING):match("&watch=([^&]*)") or ""
end

local function note(name, token)
  local file <close> = assert(io.open(scratch .. "/" .. name, "a"))
  file:write(token, "\n")
end

local function sleep(milliseconds)
  os.execute(("sleep %.3f"):format(milliseconds / 1000))
end

local function gate(env)
  local path = scratch .. "/go-" .. token_of(env)
  os.execute(("i=0; while [ ! -e '%s' ] && [ $i -lt 2000 ]; do sleep 0.01; i=$((i+1)); done"):format(path))
end

local plain = { ["Content-Type"] = "text/plain" }

local function with(headers)
  headers["Content-Type"] = "text/plain"
  return headers
end

-- A body that is made as it is sent.
local function body(make)
  return coroutine.create(function()
    make(coroutine.yield)
  end)
end

paths["hello"] = function(env)
  return 200, with({ ["X-Method"] = env.REQUEST_METHOD }), "hello, world"
end

paths["echo"] = function(env)
  return 200, plain, function()
    return env.input:some(65536)
  end
end

paths["length"] = function(env)
  local name = os.tmpname()
  local size = 0
  do
    local sum <close> = assert(io.popen("sha256sum >" .. name, "w"))
    for piece in env.input.some, env.input do
      sum:write(piece)
      size = size + #piece
    end
  end
  local file <close> = assert(io.open(name))
  os.remove(name)
  return 200, plain, ("%d %s\n"):format(size, file:read("a"):match("^%x+"))
end

paths["half"] = function(env)
  local known = tonumber(env.CONTENT_LENGTH)
  local got = known and env.input:read(known // 2) or env.input:some(1000)
  return 200, plain, ("half %d\n"):format(#(got or ""))
end

paths["never"] = function()
  return 200, with({ ["Content-Length"] = 6 }), "never\n"
end

paths["first"] = function(env)
  return 200, plain, body(function(put)
    put("first\n")
    gate(env)
    put("last\n")
  end)
end

paths["late"] = function(env)
  gate(env)
  return paths["length"](env)
end

paths["hang"] = function(_, milliseconds)
  sleep(milliseconds)
  return 200, plain, "too late"
end

paths["hang-read"] = function(env, milliseconds)
  env.input:read()
  return paths["hang"](env, milliseconds)
end

paths["sleep"] = function(_, milliseconds)
  sleep(milliseconds)
  return 200, plain, "slept"
end

paths["fields"] = function(env)
  local lines = {}
  for name, value in pairs(env) do
    if type(value) == "string" then
      lines[#lines + 1] = ("%s=%s\n"):format(name, value)
    end
  end
  return 200, plain, table.concat(lines)
end

paths["path_info"] = function(env)
  return 200, plain, env.PATH_INFO
end

paths["cookies"] = function(env)
  return 200, plain, env.HTTP_COOKIE
end

paths["status"] = function(_, number)
  return number, plain, number ~= 204 and number ~= 304 and ("status %d\n"):format(number) or nil
end

paths["reason"] = function()
  return "299 Quite Fine", plain
end

paths["headers"] = function()
  local headers = with({ ["Set-Cookie"] = { "a=1", "b=2; Path=/", "c=3" }, ["X-Long"] = ("x"):rep(8000) })
  for number = 0, 49 do
    headers["X-Many-" .. number] = number
  end
  return 200, headers, "headers"
end

paths["inject"] = function()
  return 200, with({ ["X-Bad"] = "a\r\nX-Injected: 1" }), "injected"
end

paths["stream"] = function(_, count)
  local number = -1
  return 200, plain, function()
    number = number + 1
    return number < count and ("piece %d\n"):format(number) or nil
  end
end

paths["steps"] = function(env)
  return 200, plain, body(function(put)
    put("one\n")
    gate(env)
    put("two\n")
  end)
end

paths["large"] = function(_, size)
  local begin = -65536
  return 200, with({ ["Content-Length"] = size }), function()
    begin = begin + 65536
    if begin < size then
      local lines = {}
      for at = begin, math.min(begin + 65536, size) - 1, 16 do
        lines[#lines + 1] = ("%015d\n"):format(at)
      end
      return table.concat(lines):sub(1, size - begin)
    end
  end
end

paths["file"] = function()
  return 200, plain, io.open(scratch .. "/file", "rb")
end

paths["empty"] = function()
  return 200, with({ ["Content-Length"] = 0 })
end

paths["nobody"] = function()
  return 204
end

paths["early"] = function(env)
  env.early_hints({ Link = "</style.css>; rel=preload" })
  return 200, plain, "early"
end

paths["trailers"] = function(env)
  return 200, plain, body(function(put)
    env.trailers({ ["X-Checksum"] = 12 })
    put("body")
  end)
end

paths["error"] = function()
  error("conformance error")
end

paths["error-late"] = function()
  return 200, plain, body(function(put)
    put("part\n")
    error("conformance error")
  end)
end

paths["short"] = function()
  return 200, with({ ["Content-Length"] = 100 }), "short"
end

paths["long"] = function()
  return 200, with({ ["Content-Length"] = 5 }), "hello, and more"
end

paths["log"] = function(env)
  env.error:write("conformance log ", token_of(env), "\n")
  return 200, plain, "logged"
end

paths["pid"] = function()
  local file <close> = assert(io.open("/proc/self/stat"))
  return 200, plain, tostring(file:read("n"))
end

paths["after"] = function(env)
  return 200, plain, "after", function()
    gate(env)
    note("after", token_of(env))
  end
end

paths["deadline"] = function(env)
  return 200, plain, tostring(env.deadline() or "none")
end

paths["cancelled"] = function(env)
  for _ = 1, 2000 do
    if env.cancelled() then
      note("cancelled", token_of(env))
      break
    end
    sleep(10)
  end
  return 200, plain
end

paths["upgrade"] = function(env)
  if env.UPGRADE ~= "conformance" then
    return 426, plain
  end
  return 101, { Upgrade = "conformance" }, function()
    return env.input:some(65536)
  end
end

return function(env)
  local name, number = env.PATH_INFO:match("^/([^/]*)/?(%d*)")
  local path = paths[name]
  if not path then
    return 404, plain, "no such path"
  end
  local token = token_of(env)
  if token == "" then
    return path(env, tonumber(number))
  end
  note("begun", token)
  local good, status, headers, content, close = pcall(path, env, tonumber(number))
  if not good then
    note("closed", token)
    error(status, 0)
  end
  return status, headers, content, function()
    if close then
      close()
    end
    note("closed", token)
  end
end
