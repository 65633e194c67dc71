-- Applications and their answers. Runs in the plugin's Lua state, once in the manager, and returns what plugin.c calls.
-- Its arguments are `native`, which is request.c, and name and value of each of the group's settings.
--
-- An application is a function of one argument: application(wsapi_env) -> status, headers, body, close
--
--   status    200 or "200 OK"
--   headers   {Name = value}, a value being a string, a number, or a list of them: one field for each; or nil
--   body      a string, a function that returns pieces until nil, a coroutine that yields them, an open file, or nil
--   close     nil, a function, or a value with __close: called when the request is over, however it has ended

local native = ...
local scripts = {} -- by path: what the file was like, and its application
local named -- the path of the application that the group names; nil: the requested file's
local group -- that application, once it is loaded
local preload = {}
local hooks = {} -- what the application wants called in each new worker
local loaded -- this is a worker, and the hooks have been called
local requests = 0 -- how many there have been, this one included

-- `watch`: the manager is told of each file that `require` finds, and that loadfile and dofile read; not of a request's own,
-- which is read again by itself. What the pipe might not take while nobody reads is left out.
local load_file = loadfile
local function watch(descriptor, directory)
  local pipe, told, room = assert(io.open("/proc/self/fd/" .. descriptor, "w")), {}, 16384 -- bytes of names
  pipe:setvbuf("no")
  local function tell(path)
    if directory and path:sub(1, 1) ~= "/" then
      path = directory .. "/" .. path:gsub("^%./", "")
    end
    if not told[path] and #path < room then
      told[path], room = true, room - #path - 1
      pipe:write(path .. "\0")
    end
  end
  for i = 2, #package.searchers do
    local search = package.searchers[i]
    package.searchers[i] = function(name)
      local loader, path = search(name)
      if type(loader) == "function" and type(path) == "string" then
        tell(path)
      end
      return loader, path
    end
  end
  for _, name in ipairs({ "loadfile", "dofile" }) do
    local plain = _G[name]
    _G[name] = function(path, ...)
      tell(tostring(path))
      return plain(path, ...)
    end
  end
end

-- The function that a file returns, or `run` of the table that it returns, or its global `application`. Globals that a
-- file sets are its own; it sees all others.
local function run(path)
  local globals = setmetatable({}, { __index = _G })
  local chunk, problem = load_file(path, "bt", globals)
  if not chunk then
    error(problem, 0)
  end
  local result = chunk(path)
  if type(result) == "table" then
    result = result.run
  end
  if type(result) ~= "function" then
    result = rawget(globals, "application")
  end
  if type(result) ~= "function" then
    error(path .. " returns no function and no table with a function run, and defines no application", 0)
  end
  return result
end

-- A file's application, read again when the file has changed; or nil and the status that says why not.
local function script(path)
  local mark, status = native.mark(path)
  if not mark then
    return nil, status
  end
  local known = scripts[path]
  if not known or known.mark ~= mark then
    known = { mark = mark, application = run(path) }
    scripts[path] = known
  end
  return known.application
end

local function script_or_error(path)
  local application, status = script(path)
  return application or error(path .. (status == 403 and ": Permission denied" or ": No such file"), 0)
end

-- Functions that are called in each new worker, in their order, once the application is there; at once where no fork is to
-- come any more.
webserver = {}
function webserver.after_fork(...)
  for _, hook in ipairs({ ... }) do
    if type(hook) ~= "function" then
      error(("after_fork: expected functions, got a %s"):format(type(hook)), 2)
    end
    if loaded then
      hook()
    end
    hooks[#hooks + 1] = hook
  end
end

-- Lua has drawn its seed in the manager, and its own way to draw another one is the time. A jail may have no random bytes.
local function seed()
  local file <close> = io.open("/dev/urandom", "rb") or io.open("/proc/self/stat", "rb")
  if file then
    local one, two = string.unpack("i8i8", file:read(16))
    math.randomseed(one ~ os.time(), two)
  end
end

-- Modules in a directory come before all others.
local function look_in(directory)
  -- "/" is where a group is that has no directory of its own; nobody's modules are there.
  if directory and directory ~= "" and directory ~= "/" then
    package.path = ("%s/?.lua;%s/?/init.lua;%s"):format(directory, directory, package.path)
  end
end

local function open(_, ...)
  -- What a request leaves is young; what lives long is neither looked at nor, in memory shared by workers, written to.
  collectgarbage("generational")
  arg = { [0] = "webserver" }
  local settings, given = table.pack(...), {}
  for i = 1, settings.n, 2 do
    local name, value = settings[i], settings[i + 1]
    if name == "arguments" then
      arg[#arg + 1] = value
    elseif name == "preload" then
      preload[#preload + 1] = value
    else
      given[name] = value
    end
  end
  look_in(given.directory)
  if given.watch then
    watch(given.watch, given.directory)
  end
  if given.application and given.application ~= "" then
    named = given.application
    arg[0] = named
    look_in(given.application:match("^(.*)/"))
  end
  -- It is a pipe to the log: else a line would be there when some four thousand bytes are.
  io.stdout:setvbuf("line")
end

local function run_preload()
  for _, name in ipairs(preload) do
    if name:sub(1, 1) == "/" then
      script_or_error(name)
    else
      require(name)
    end
  end
end

-- In a worker. A file that was preloaded is not run again.
local function load_application()
  seed()
  group = named and script_or_error(named)
  for _, hook in ipairs(hooks) do
    hook()
  end
  loaded = true
end

local function send(piece)
  if type(piece) ~= "string" then
    error(("the body gave a %s, expected a string"):format(type(piece)), 0)
  end
  return piece == "" or native.write(piece)
end

-- env.input and env.error; each request has its own, so that one that was kept reads nothing of another's.
local stream = {}
stream.__index = stream

local function check(self)
  if self.request ~= requests then
    error("the request of this stream is over", 3)
  end
end

-- input:read(size): as many bytes, fewer at the body's end, nil after it; without a size all that is left.
function stream:read(size)
  check(self)
  if math.type(size) == "integer" then
    return native.read(size)
  end
  return native.read(math.maxinteger) or ""
end

-- input:some([most]): what has come, at least a byte; nil at the body's end.
function stream:some(most)
  check(self)
  return native.read(math.type(most) == "integer" and math.max(most, 1) or 65536, true)
end

-- error:write(...): one entry of the log, with the request's id.
function stream:write(...)
  check(self)
  local texts = table.pack(...)
  for i = 1, texts.n do
    texts[i] = tostring(texts[i])
  end
  native.log(2, table.concat(texts))
  return self
end

function stream:flush()
  return self
end

stream.setvbuf = stream.flush

local constants = native.constants -- that native.variable knows
constants.GATEWAY_INTERFACE = "CGI/1.1"
constants.cancelled = native.cancelled
constants.deadline = native.deadline
function constants.early_hints(headers)
  native.fields(headers)
end
function constants.trailers(headers)
  native.fields(headers, false)
end

-- What pairs() finds in an environment beside the request's fields.
local names = {}
for name in
  ([[REQUEST_METHOD REQUEST_URI SCRIPT_NAME PATH_INFO QUERY_STRING SERVER_NAME SERVER_PORT SERVER_PROTOCOL SERVER_ADDR
  REMOTE_ADDR REMOTE_PORT REQUEST_SCHEME REQUEST_ID DOCUMENT_ROOT SCRIPT_FILENAME UPGRADE HTTPS]]):gmatch("%S+")
do
  names[#names + 1] = name
end

local environment = {
  __index = native.variable,
  __pairs = function(env)
    native.fill(env)
    for _, name in ipairs(names) do
      rawset(env, name, env[name])
    end
    return next, env
  end,
}

local function environ()
  requests = requests + 1
  local both = setmetatable({ request = requests }, stream)
  local env = native.environ()
  env.input, env.error = both, both
  return setmetatable(env, environment)
end

-- A body that is no string. Each piece is on its way before the next is asked for. Ends early when the client has gone.
local function send_body(body)
  local kind = type(body)
  if kind == "thread" then
    repeat
      local good, piece = coroutine.resume(body)
      if not good then
        error(debug.traceback(body, tostring(piece)), 0)
      end
    until coroutine.status(body) == "dead" or not send(piece or "")
  elseif kind == "function" then
    repeat
      local piece = body()
    until piece == nil or not send(piece)
  elseif io.type(body) == "file" then
    native.send_file(body)
  elseif body ~= nil then
    error(("the application returned a %s as body, expected a string, function, coroutine or file"):format(kind), 0)
  end
  native.write("", true)
end

local function log_failure(good, ...)
  if not good then
    native.log(0, debug.traceback(tostring((...))))
  end
end

-- What is left when the request is over: pending <close> variables of a coroutine, an open file, the application's own.
local cleaning = {
  __close = function(what)
    local body, close = what.body, what.close
    local state = type(body) == "thread" and coroutine.status(body)
    if state == "suspended" then
      log_failure(coroutine.close(body))
    elseif state == "dead" then
      coroutine.close(body) -- after an error its variables are still open; the error has been told
    elseif io.type(body) == "file" then
      body:close()
    end
    if type(close) == "function" then
      log_failure(pcall(close))
    elseif close ~= nil then
      log_failure(pcall(getmetatable(close).__close, close))
    end
  end,
}

local function answer(status, headers, body)
  local reason = ""
  if type(status) == "string" then
    status, reason = status:match("^%s*(%d%d%d)%s*(.-)$")
  end
  local number = math.tointeger(status)
  if not number then
    error('the application returned no status: expected a number, such as 200, or a string, such as "200 OK"', 0)
  end
  if headers ~= nil and type(headers) ~= "table" then
    error(("the application returned a %s as headers, expected a table"):format(type(headers)), 0)
  end
  local empty = number == 204 or number == 304
  local length = not empty and (type(body) == "string" and #body or body == nil and 0) or -1
  native.fields(headers or {}, number, reason, length)
  if type(body) == "string" then
    native.write(body, true)
  else
    send_body(body)
  end
end

-- One request. An error that comes out of here is the application's, and has its traceback.
local function request()
  local env, application = environ(), group
  if not application then
    local status
    application, status = script(env.SCRIPT_FILENAME)
    if not application then
      return answer(status, { ["Content-Type"] = "text/plain" }, status == 403 and "Forbidden\n" or "Not Found\n")
    end
  end
  local status, headers, body, close = application(env)
  if close == nil and (type(body) == "string" or body == nil) then
    return answer(status, headers, body)
  end
  local _ <close> = setmetatable({ body = body, close = close }, cleaning)
  answer(status, headers, body)
end

-- coroutine.wrap on top of our coroutine.resume, which knows what runs: stacks.c. What has failed is closed, and its
-- message gets the caller's place, as Lua's own does it.
local close, create, resume, state_of = coroutine.close, coroutine.create, native.resume, coroutine.status

local function unwrap(co, good, ...)
  if good then
    return ...
  end
  local problem = ...
  if state_of(co) == "dead" then
    local clean, instead = close(co)
    problem = clean and problem or instead
  end
  error(problem, 2)
end

coroutine.resume = resume
function coroutine.wrap(f)
  local co = create(f)
  return function(...)
    return unwrap(co, resume(co, ...))
  end
end

local traceback, text_of = debug.traceback, tostring

-- What has been thrown, with where it was. A client that goes away in the middle of its request is no mistake of the
-- application's: nil, since it has been told here.
local function explain(problem)
  problem = text_of(problem)
  local known, gone = pcall(native.cancelled)
  if known and gone and problem:find("the client went away", 1, true) then
    native.log(2, problem)
    return nil
  end
  return traceback(problem, 2)
end

open(...)
return explain, run_preload, load_application, request
