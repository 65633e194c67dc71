-- Recipes: an application without a framework, on SQLite. What it writes lies below DEMONSTRATION_STATE.
local sqlite = require "luasql.sqlite3"

local HOME = os.getenv("DEMONSTRATION_STATE") .. "/recipes"
local MOST = 16 * 1024 * 1024

local db -- opened in the worker: a connection is not to be shared by processes

local function database()
  if not db then
    db = assert(sqlite.sqlite3():connect(HOME .. "/recipes.sqlite3", 5000))
    assert(db:execute("CREATE TABLE IF NOT EXISTS recipe (id INTEGER PRIMARY KEY, title TEXT, name TEXT, size INTEGER)"))
    assert(db:execute("CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, token TEXT, known INTEGER)"))
  end
  return db
end

local function quoted(text)
  return "'" .. database():escape((tostring(text):gsub("%z", ""))) .. "'"
end

-- Each row of an answer, as a table by column.
local function rows(query)
  local cursor = assert(database():execute(query))
  return function()
    return cursor:fetch({}, "a")
  end
end

local function html(text)
  return (tostring(text):gsub("[&<>\"']", {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;"}))
end

local function random(bytes)
  local file <close> = assert(io.open("/dev/urandom", "rb"))
  return (file:read(bytes):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function decoded(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- ---- forms

local function body_of(env)
  if (tonumber(env.CONTENT_LENGTH) or MOST) > MOST then
    return nil
  end
  local parts, size = {}, 0
  for piece in env.input.some, env.input do
    size = size + #piece
    if size > MOST then
      return nil
    end
    parts[#parts + 1] = piece
  end
  return table.concat(parts)
end

-- RFC 7578: {name = {value, filename}}
local function multipart(body, boundary)
  local fields, mark = {}, "--" .. boundary
  local at = select(2, body:find(mark, 1, true))
  while at and body:sub(at + 1, at + 2) == "\r\n" do
    local head_end, data = body:find("\r\n\r\n", at, true)
    local stop, last = body:find("\r\n" .. mark, data or at, true)
    if not data or not stop then
      break
    end
    local head = body:sub(at + 3, head_end + 1)
    local name = head:match('[;%s]name="([^"]*)"')
    if name then
      fields[name] = {body:sub(data + 1, stop - 1), head:match('filename="([^"]*)"')}
    end
    at = last
  end
  return fields
end

local function form(env)
  local body = body_of(env)
  if not body then
    return nil
  end
  local boundary = (env.CONTENT_TYPE or ""):match('^multipart/form%-data;.*boundary="?([^";]+)')
  if boundary then
    return multipart(body, boundary)
  end
  local fields = {}
  for name, value in body:gmatch("([^&=]+)=([^&]*)") do
    fields[decoded(name)] = {decoded(value)}
  end
  return fields
end

-- ---- sessions

local function session_of(env)
  local id = ("; " .. (env.HTTP_COOKIE or "")):match("; recipes=(%x+)")
  local row = id and rows("SELECT id, token, known FROM session WHERE id = " .. quoted(id))()
  if row then
    return row
  end
  row = {id = random(16), token = random(16), known = 0, new = true}
  assert(database():execute(("INSERT INTO session VALUES (%s, %s, 0)"):format(quoted(row.id), quoted(row.token))))
  return row
end

-- ---- answers

local function page(session, said)
  local out = {[[<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Recipes</title>
<link rel="icon" href="/static/mark.svg">
<link rel="stylesheet" href="/static/demonstration.css">
<h1>Recipes</h1>
<p>Two hundred lines of Lua, no framework, made this page, from SQLite.</p>
]]}
  local function add(text)
    out[#out + 1] = text
  end
  local token = ('<input type="hidden" name="token" value="%s">'):format(session.token)
  if said then
    add('<p class="key">' .. html(said) .. "</p>\n")
  end
  if tonumber(session.known) == 1 then
    add('<form method="post" action="add" enctype="multipart/form-data">' .. token .. [[

<p><label>Title <input name="title" required></label> <label>File <input type="file" name="file" required></label>
<button>Keep it</button></p></form>
]])
    add('<form method="post" action="logout">' .. token .. "<p><button>Log out</button></p></form>\n")
  else
    add('<form method="post" action="login">' .. token .. [[

<p><label>Password <input type="password" name="password"></label> <button>Log in</button> It is
<b>demonstration</b>.</p></form>
]])
  end
  add("<ul>\n")
  for row in rows("SELECT id, title, name, size FROM recipe ORDER BY id") do
    add(('<li><a href="recipe/%d">%s</a> <small>%s, %d bytes</small>\n'):format(
      row.id, html(row.title), html(row.name), row.size))
  end
  add('</ul>\n<p><a href="/">Back to the demonstration</a></p>\n</html>\n')
  return table.concat(out)
end

local function answer(session, status, said)
  local headers = {["Content-Type"] = "text/html; charset=utf-8"}
  if session.new then
    headers["Set-Cookie"] = "recipes=" .. session.id .. "; Path=/lua; HttpOnly; SameSite=Lax"
  end
  return status, headers, page(session, said)
end

local function plain(status, text)
  return status, {["Content-Type"] = "text/plain"}, text .. "\n"
end

local paths = {}

paths["GET /"] = function(env)
  return answer(session_of(env), 200)
end

local function posted(env)
  local session = session_of(env)
  local fields = form(env)
  if not fields then
    return nil, session, plain(413, "too large")
  elseif not fields.token or fields.token[1] ~= session.token then
    return nil, session, plain(403, "bad token")
  end
  return fields, session
end

paths["POST /login"] = function(env)
  local fields, session, status, headers, text = posted(env)
  if not fields then
    return status, headers, text
  end
  if not fields.password or fields.password[1] ~= "demonstration" then
    return answer(session, 200, "That is not the password.")
  end
  -- A new name for it: whoever gave somebody the old one does not know this.
  local id = random(16)
  assert(database():execute(
    ("UPDATE session SET known = 1, id = %s WHERE id = %s"):format(quoted(id), quoted(session.id))))
  session.id, session.known, session.new = id, 1, true
  return answer(session, 200, "Welcome.")
end

paths["POST /logout"] = function(env)
  local fields, session, status, headers, text = posted(env)
  if not fields then
    return status, headers, text
  end
  assert(database():execute("DELETE FROM session WHERE id = " .. quoted(session.id)))
  return 303, {Location = env.SCRIPT_NAME .. "/"}
end

paths["POST /add"] = function(env)
  local fields, session, status, headers, text = posted(env)
  if not fields then
    return status, headers, text
  elseif tonumber(session.known) ~= 1 then
    return plain(403, "log in first")
  elseif not fields.file or not fields.file[2] or not fields.title then
    return plain(400, "no file")
  end
  assert(database():execute(("INSERT INTO recipe (title, name, size) VALUES (%s, %s, %d)"):format(
    quoted(fields.title[1]), quoted(fields.file[2]), #fields.file[1])))
  local file <close> = assert(io.open(("%s/files/%d"):format(HOME, database():getlastautoid()), "wb"))
  assert(file:write(fields.file[1]))
  return answer(session, 200, "It is kept.")
end

-- Ten lines in ten seconds, each sent when it is there.
paths["GET /count"] = function()
  return 200, {["Content-Type"] = "text/plain"}, coroutine.create(function()
    for number = 0, 10 do
      if number > 1 then
        os.execute("sleep 1")
      end
      coroutine.yield(number == 0 and "a worker counts to 10\n" or number .. "\n")
    end
  end)
end

local function recipe(id)
  local row = rows("SELECT id, name FROM recipe WHERE id = " .. tonumber(id))()
  local file = row and io.open(HOME .. "/files/" .. row.id, "rb")
  if not file then
    return plain(404, "there is no such recipe")
  end
  local name = row.name:gsub("[^%w.-]", "_")
  return 200, {
    ["Content-Type"] = "application/octet-stream",
    ["Content-Disposition"] = 'attachment; filename="' .. name .. '"',
  }, file
end

return function(env)
  local path = env.PATH_INFO == "" and "/" or env.PATH_INFO
  local id = path:match("^/recipe/(%d+)$")
  if id and env.REQUEST_METHOD == "GET" then
    return recipe(id)
  end
  local handler = paths[(env.REQUEST_METHOD == "HEAD" and "GET" or env.REQUEST_METHOD) .. " " .. path]
  if handler then
    return handler(env)
  end
  return plain(404, "there is nothing here")
end
