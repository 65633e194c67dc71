# The benchmark's PSGI application: does what app.wsgi does, for every Perl server. See there.
use strict;
use warnings;
use Digest::SHA ();
use Time::HiRes ();

my $PIECE        = '0123456789abcdef' x 4096;    # 64 KiB
my $STREAM_BYTES = 10 * 1024 * 1024;
my $PAGE_BYTES   = 10240;
my @PAGE_FIELDS  = qw(
    HTTP_USER_AGENT HTTP_ACCEPT HTTP_ACCEPT_LANGUAGE HTTP_COOKIE HTTP_REFERER
    HTTP_CACHE_CONTROL HTTP_DNT HTTP_X_REQUEST_ID HTTP_X_TRACE HTTP_X_TENANT
);

sub query_number {
    my ($env, $name, $default) = @_;
    return ($env->{QUERY_STRING} // '') =~ /(?:^|&)\Q$name\E=([0-9]+)/ ? $1 : $default;
}

sub hello {
    return [200, ['Content-Type' => 'text/plain', 'Content-Length' => 12], ['hello, world']];
}

sub page {
    my ($env) = @_;
    my $body = join '', map { $_ . ': ' . ($env->{$_} // '') . "\n" } @PAGE_FIELDS;
    $body .= 'path: ' . ($env->{SCRIPT_NAME} // '') . ($env->{PATH_INFO} // '') . "\n";
    $body .= 'query: ' . ($env->{QUERY_STRING} // '') . "\n";
    $body .= '.' x ($PAGE_BYTES - length $body);
    my $id = $env->{HTTP_X_REQUEST_ID} // '';
    return [
        200,
        [
            'Content-Type'            => 'text/html; charset=utf-8',
            'Content-Length'          => length $body,
            'Content-Language'        => 'en',
            'Cache-Control'           => 'private, max-age=0',
            'Vary'                    => 'Cookie',
            'Set-Cookie'              => "session=$id; HttpOnly",
            'Set-Cookie'              => 'seen=1; Path=/',
            'X-Request-Id'            => $id,
            'X-Frame-Options'         => 'DENY',
            'X-Content-Type-Options'  => 'nosniff',
            'Referrer-Policy'         => 'same-origin',
            'Content-Security-Policy' => "default-src 'self'",
        ],
        [$body],
    ];
}

sub upload {
    my ($env) = @_;
    my $digest = Digest::SHA->new(256);
    my ($length, $left) = (0, $env->{CONTENT_LENGTH} || 0);
    while ($left > 0) {
        my $got = $env->{'psgi.input'}->read(my $piece, $left < 65536 ? $left : 65536);
        last unless $got;
        $digest->add($piece);
        $length += $got;
        $left   -= $got;
    }
    my $answer = $length . ' ' . $digest->hexdigest;
    return [200, ['Content-Type' => 'text/plain', 'Content-Length' => length $answer], [$answer]];
}

sub stream {
    my ($env) = @_;
    my $left = query_number($env, 'bytes', $STREAM_BYTES);
    return sub {
        my $writer = $_[0]->([200, ['Content-Type' => 'application/octet-stream']]);
        while ($left > 0) {
            $writer->write($left >= length $PIECE ? $PIECE : substr $PIECE, 0, $left);
            $left -= length $PIECE;
        }
        $writer->close;
    };
}

sub slept {
    my ($env) = @_;
    Time::HiRes::sleep(query_number($env, 'ms', 200) / 1000);
    return hello($env);
}

my %HANDLERS = (hello => \&hello, page => \&page, upload => \&upload, stream => \&stream, sleep => \&slept);

my $dispatch = sub {
    my ($env)     = @_;
    my ($segment) = $env->{PATH_INFO} =~ m{([^/]*)\z};
    my $handler   = $HANDLERS{$segment};
    return $handler ? $handler->($env) : [404, ['Content-Type' => 'text/plain', 'Content-Length' => 0], []];
};

my $application = $dispatch;
if ($ENV{BENCH_COUNT}) {
    open my $count, '>>', $ENV{BENCH_COUNT} or die "$ENV{BENCH_COUNT}: $!";
    $application = sub { syswrite $count, '.'; return $dispatch->(@_) };
}
$application;
