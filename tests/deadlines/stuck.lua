package.cpath = arg[0]:match("^(.*)/") .. "/?.so"
local ignore_term = require("deaf")
local ways = {}

function ways.loop()
  local guard <close> = setmetatable({}, { __close = function() print("cleaned up after loop") end })
  while true do end -- loop
end

function ways.sleep()
  local pipe = io.popen("exec sleep 1000")
  pipe:read("a") -- sleep
end

function ways.lock()
  local inner = coroutine.wrap(function()
    while true do end -- lock
  end)
  inner()
end

function ways.c()
  return ("a"):rep(100000):match(("a*"):rep(20) .. "b") -- c
end

function ways.pause(seconds)
  return io.popen("exec sleep " .. seconds):read("a") -- pause
end

function ways.spin(seconds)
  local finish = os.time() + math.ceil(seconds)
  while os.time() < finish do end -- spin
end

return function(env)
  local name, seconds = env.PATH_INFO:match("^/(%a*)/?(.*)$")
  if ways[name] then
    if name ~= "pause" and name ~= "spin" then
      ignore_term()
    end
    ways[name](tonumber(seconds))
  end
  return 200, { ["Content-Type"] = "text/plain" }, io.open("/proc/self/stat"):read("n") .. ""
end
