<?php
/* The conformance application in PHP, as a front controller. */
while (ob_get_level()) {
    ob_end_clean();
}
$scratch = getenv('SCRATCH');
$token = $_GET['watch'] ?? '';
header('Content-Type: text/plain');

function note(string $name, string $token): void
{
    global $scratch;
    file_put_contents("$scratch/$name", "$token\n", FILE_APPEND);
}

function gate(): void
{
    global $scratch, $token;
    for ($i = 0; $i < 2000 && !file_exists("$scratch/go-$token"); $i++) {
        usleep(10000);
        clearstatcache();
    }
}

function piece(string $text): void
{
    echo $text;
    flush();
}

/* Content of $size bytes. */
function content(int $size): void
{
    for ($begin = 0; $begin < $size; $begin += 65536) {
        $block = '';
        for ($at = $begin; $at < min($begin + 65536, $size); $at += 16) {
            $block .= sprintf("%015d\n", $at);
        }
        echo substr($block, 0, $size - $begin);
    }
}

function length(): void
{
    $input = fopen('php://input', 'rb');
    $hash = hash_init('sha256');
    $size = 0;
    while (($read = fread($input, 65536)) !== false && $read !== '') {
        hash_update($hash, $read);
        $size += strlen($read);
    }
    if (connection_aborted()) {
        throw new RuntimeException('the client has gone');
    }
    echo $size, ' ', hash_final($hash), "\n";
}

if ($token !== '') {
    /* The client's end must not stop the script before it has cleaned up; this runs whatever has happened. */
    register_shutdown_function(fn() => note('closed', $token));
    note('begun', $token);
}
$path = $_SERVER['PATH_INFO'] ?? '';
if ($path === '') {
    $path = substr(rawurldecode(strtok($_SERVER['REQUEST_URI'], '?')), strlen($_SERVER['SCRIPT_NAME']));
}
$words = explode('/', ltrim($path, '/'));
$number = (int) ($words[1] ?? 0);
switch ($words[0]) {
    case 'hello':
        header("X-Method: $_SERVER[REQUEST_METHOD]");
        echo 'hello, world';
        break;
    case 'echo':
        $input = fopen('php://input', 'rb');
        while (($read = fread($input, 65536)) !== false && $read !== '') {
            piece($read);
        }
        break;
    case 'length':
        length();
        break;
    case 'half':
        $wanted = isset($_SERVER['CONTENT_LENGTH']) ? intdiv((int) $_SERVER['CONTENT_LENGTH'], 2) : 1000;
        $input = fopen('php://input', 'rb');
        stream_set_read_buffer($input, 0);
        $size = 0;
        while ($size < $wanted && ($read = fread($input, $wanted - $size)) !== false && $read !== '') {
            $size += strlen($read);
            if (!isset($_SERVER['CONTENT_LENGTH'])) {
                break;
            }
        }
        echo "half $size\n";
        break;
    case 'never':
        header('Content-Length: 6');
        echo "never\n";
        break;
    case 'first':
        piece("first\n");
        gate();
        piece("last\n");
        break;
    case 'late':
        gate();
        length();
        break;
    case 'hang-read':
        file_get_contents('php://input');
        /* and on */
    case 'hang':
        usleep($number * 1000);
        echo 'too late';
        break;
    case 'sleep':
        usleep($number * 1000);
        echo 'slept';
        break;
    case 'fields':
        foreach ($_SERVER as $name => $value) {
            if (is_string($value)) {
                echo "$name=$value\n";
            }
        }
        break;
    case 'path_info':
        echo $path;
        break;
    case 'cookies':
        echo $_SERVER['HTTP_COOKIE'] ?? '';
        break;
    case 'status':
        http_response_code($number);
        if ($number !== 204 && $number !== 304) {
            echo "status $number\n";
        }
        break;
    case 'reason':
        header('HTTP/1.1 299 Quite Fine');
        break;
    case 'headers':
        for ($i = 0; $i < 50; $i++) {
            header("X-Many-$i: $i");
        }
        header('Set-Cookie: a=1', false);
        header('Set-Cookie: b=2; Path=/', false);
        header('Set-Cookie: c=3', false);
        header('X-Long: ' . str_repeat('x', 8000));
        echo 'headers';
        break;
    case 'inject':
        @header("X-Bad: a\r\nX-Injected: 1");
        echo 'injected';
        break;
    case 'stream':
        for ($i = 0; $i < $number; $i++) {
            piece("piece $i\n");
        }
        break;
    case 'steps':
        piece("one\n");
        gate();
        piece("two\n");
        break;
    case 'large':
        header("Content-Length: $number");
        content($number);
        break;
    case 'file':
        readfile("$scratch/file");
        break;
    case 'early':
        header('Link: </style.css>; rel=preload');
        headers_send(103);
        header_remove('Link');
        echo 'early';
        break;
    case 'deadline':
        $ends = $_SERVER['WEBSERVER_DEADLINE'] ?? null;
        echo $ends === null ? 'none' : sprintf('%.3f', $ends - hrtime(true) / 1e9);
        break;
    case 'empty':
        header('Content-Length: 0');
        break;
    case 'nobody':
        http_response_code(204);
        break;
    case 'error':
        throw new RuntimeException('conformance error');
    case 'error-late':
        piece("part\n");
        throw new RuntimeException('conformance error');
    case 'short':
        header('Content-Length: 100');
        echo 'short';
        break;
    case 'long':
        header('Content-Length: 5');
        echo 'hello, and more';
        break;
    case 'log':
        error_log("conformance log $token");
        echo 'logged';
        break;
    case 'pid':
        echo getmypid();
        break;
    case 'after':
        echo 'after';
        fastcgi_finish_request();
        gate();
        note('after', $token);
        break;
    case 'cancelled':
        ignore_user_abort(true);
        for ($i = 0; $i < 2000 && !connection_aborted(); $i++) {
            usleep(10000);
            echo ' ';
            flush();
        }
        if (connection_aborted()) {
            note('cancelled', $token);
        }
        break;
    default:
        http_response_code(404);
        echo 'no such path';
}
