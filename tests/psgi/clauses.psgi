# PSGI 1.102 clause by clause: an application of many small ones, each named by the first part of the path.
use strict;
use warnings;
use utf8;
use Time::HiRes ();

my %clause;
my $plain = ['Content-Type' => 'text/plain'];
our ($kept, $loads);
$loads++;
print "a line on standard output\n";

# Values that can be seen as text, one "name=value" on each line; control characters as \xNN.
sub table {
    my ($hash) = @_;
    return join '', map {
        my $value = defined $hash->{$_} ? $hash->{$_} : 'undef';
        $value =~ s/([\x00-\x1f\\])/sprintf '\\x%02x', ord $1/ge;
        "$_=$value\n"
    } sort keys %$hash;
}

sub text { return [200, [@$plain], [@_]] }

sub note {
    my ($name, $line) = @_;
    open my $file, '>>', $name or die "$name: $!";
    syswrite $file, "$line\n";
    close $file;
}

sub wait_for {
    my ($name) = @_;
    for (1 .. 2000) {
        return 1 if -e $name;
        Time::HiRes::sleep(0.01);
    }
    return 0;
}

# ---- the environment

$clause{env} = sub {
    my ($env) = @_;
    my %seen = map { ($_ => ref $env->{$_} ? ref $env->{$_} : $env->{$_}) } keys %$env;
    $seen{'psgi.version'} = join '.', @{$env->{'psgi.version'}};
    return text(table(\%seen));
};

$clause{changes} = sub {
    my ($env) = @_;
    # Everything may be changed, and nobody else sees it.
    for my $name (grep { !/^psgi\.(input|errors)$|^psgix\.io$/ } keys %$env) {
        my $before = $env->{$name};
        $env->{$name} = "changed";
        $env->{$name} .= " twice";
        $env->{$name} = $before;
        $env->{$name} = 'spoilt';
    }
    $env->{'psgi.url_scheme'} = 'https';
    delete $env->{HTTP_HOST};
    $env->{'mine.own'} = {a => 1};
    return text(scalar keys %$env);
};

$clause{process} = sub {
    my ($env) = @_;
    require Lent;
    return text(table({
        file => __FILE__, package => __PACKAGE__, zero => $0, pid => $$, argv => "@ARGV", parent => getppid,
        colour => $ENV{COLOUR}, plack => $ENV{PLACK_ENV}, inc => $INC[0], lent => Lent::word(), loads => $loads,
        phase => ${^GLOBAL_PHASE}, cwd => readlink '/proc/self/cwd', path => $ENV{PATH},
    }));
};

$clause{separators} = sub { return text(defined $/ && $/ eq "\n" && !defined $\ && !defined $, ? 'as ever' : 'changed') };

# ---- the input

$clause{read} = sub {
    my ($env) = @_;
    my $in = $env->{'psgi.input'};
    my @out;
    for my $word (split /,/, $env->{QUERY_STRING}) {
        my ($name, @arguments) = split /:/, $word;
        my $buffer = '';
        if ($name eq 'read') {
            my $got = $in->read($buffer, @arguments);
            push @out, (defined $got ? $got : 'undef') . "=$buffer";
        } elsif ($name eq 'offset') {
            $buffer = 'begun:';
            my $got = $in->read($buffer, $arguments[0], length $buffer);
            push @out, "$got=$buffer";
        } elsif ($name eq 'builtin') {
            my $got = read $in, $buffer, $arguments[0];
            push @out, "$got=$buffer";
        } elsif ($name eq 'readline') {
            my $line = <$in>;
            push @out, defined $line ? $line : 'undef';
        } elsif ($name eq 'getline') {
            my $line = $in->getline;
            push @out, defined $line ? $line : 'undef';
        } elsif ($name eq 'lines') {
            push @out, join '+', $in->getlines;
        } elsif ($name eq 'getc') {
            push @out, $in->getc;
        } elsif ($name eq 'ungetc') {
            push @out, $in->ungetc(ord $arguments[0]) ? 'ok' : 'no';
        } elsif ($name eq 'eof') {
            push @out, $in->eof ? 'eof' : 'more';
        } elsif ($name eq 'seek') {
            push @out, $in->seek(@arguments) ? 'ok' : 'no';
        } elsif ($name eq 'tell') {
            push @out, tell $in;
        } elsif ($name eq 'fileno') {
            push @out, fileno $in;
        } elsif ($name eq 'binmode') {
            push @out, binmode($in, ":$arguments[0]") ? 'ok' : 'no';
        } elsif ($name eq 'slurp') {
            local $/;
            push @out, scalar <$in>;
        } elsif ($name eq 'length') {
            push @out, defined $env->{CONTENT_LENGTH} ? $env->{CONTENT_LENGTH} : 'undef';
        } elsif ($name eq 'setlength') {
            $env->{CONTENT_LENGTH} = $arguments[0];
        } elsif ($name eq 'close') {
            push @out, close $in ? 'ok' : 'no';
        } elsif ($name eq 'closed') {
            my $got = do { no warnings; $in->read($buffer, 1) };
            push @out, defined $got ? 'still open' : 'undef';
        } elsif ($name eq 'keep') {
            $kept = $in;
        } elsif ($name eq 'kept') {
            my $got = do { no warnings; $kept->read($buffer, 10) };
            push @out, defined $got ? "got $got" : "undef";
            undef $kept;
        }
    }
    return text(map { utf8::is_utf8($_) && utf8::encode($_); "$_|" } @out);
};

$clause{count} = sub {
    my ($env) = @_;
    my ($size, $sum, $piece) = (0, 0);
    my $block = $env->{QUERY_STRING} || 65536;
    while ($env->{'psgi.input'}->read($piece, $block)) {
        $size += length $piece;
        $sum = ($sum + unpack '%32C*', $piece) % 4294967296;
    }
    return text("$size $sum $env->{'psgix.input.buffered'}");
};

$clause{gone} = sub {
    my ($env) = @_;
    my ($size, $piece, $got) = (0);
    note('gone', 'begun');
    $size += $got while $got = $env->{'psgi.input'}->read($piece, 1000);
    note('gone', defined $got ? "end $size" : 'error ' . ($!{ECONNRESET} ? 'reset' : $!));
    return text('nobody reads this');
};

$clause{alarm} = sub {
    my ($env) = @_;
    my $got = eval {
        local $SIG{ALRM} = sub { die "alarm\n" };
        Time::HiRes::alarm(0.05);
        my $read = $env->{'psgi.input'}->read(my $piece, 1_000_000);
        Time::HiRes::alarm(0);
        $read;
    };
    return text(defined $got ? "read $got" : "died of $@");
};

# ---- errors

$clause{errors} = sub {
    my ($env) = @_;
    my $to = $env->{'psgi.errors'};
    my $word = $env->{QUERY_STRING};
    my $done = $to->print("printed $word\n");
    printf $to "formatted %s %d\n", $word, 5;
    print {$to} "a line ", "in ", "pieces $word\n";
    $to->say("said $word") if $to->can('say');
    $to->autoflush(1);
    print {$to} "two lines $word,\nthe second one $word\nand no end $word";
    warn "warned $word\n";
    print STDERR "on fd two $word\n";
    return text($done ? 'true' : 'false');
};

$clause{logger} = sub {
    my ($env) = @_;
    $env->{'psgix.logger'}->({level => $_, message => "logged $_ $env->{QUERY_STRING}"}) for qw(debug info warn error fatal);
    my $wrong = eval { $env->{'psgix.logger'}->({level => 'loud', message => 'x'}); 1 } ? 'taken' : $@;
    return text($wrong);
};

$clause{redirected} = sub {
    my ($env) = @_;
    open my $saved, '>&', \*STDERR or die $!;
    open STDERR, '>', 'captured' or die $!;
    print STDERR "into a file\n";
    system 'echo from a program >&2';
    open STDERR, '>&', $saved or die $!;
    print STDERR "back in the log $env->{QUERY_STRING}\n";
    open my $file, '<', 'captured' or die $!;
    local $/;
    return text(scalar <$file>);
};

for my $name (qw(answers streams extensions life)) {
    my $more = do "./$name.pl";
    die "$name.pl: " . ($@ || $!) unless ref $more eq 'HASH';
    %clause = (%clause, %$more);
}

sub {
    my ($env) = @_;
    my ($name) = $env->{PATH_INFO} =~ m{^/([^/]*)};
    my $code = $clause{$name} or return [404, [@$plain], ["no such clause: $name"]];
    return $code->($env);
};
